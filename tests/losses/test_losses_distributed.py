"""Several processes with parts of a batch compute what one process with the whole batch computes."""

import statistics as plain_statistics

import numpy as np
import pytest
import torch
import torch.distributed as dist
from independent import infonce, random_batch
from spawned import CONFIGURATIONS, CUTS, QUERIES, SIZE, STEPS, everything, process, vectors_alone

from launching import spawn
from st_l0.utils.distributed import all_gather, all_gather_objects, all_reduce_sum

PROCESSES = pytest.mark.parametrize("processes", [2, 4])
DIVISIONS = pytest.mark.parametrize("division", CUTS)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
TOLERANCE = {torch.float32: 3e-6, torch.float64: 1e-12}


@pytest.fixture(scope="module")
def several(tmp_path_factory, mlm_folder):
    """What each of 2 and of 4 processes found."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(process, (str(folder), mlm_folder), 4)
    return {
        processes: [torch.load(folder / f"{processes}-{rank}.pt") for rank in range(processes)]
        for processes in (2, 4)
    }


@pytest.fixture(scope="module")
def one(mlm_folder):
    """What this process finds with all the data."""
    torch.set_num_threads(1)
    return everything(mlm_folder)


def close(one, other):
    """Largest difference, relative to the size of the first."""
    return ((one - other).norm() / one.norm().clamp(min=1e-300)).item()


def test_one_process_is_the_identity(one):
    found = one["primitives"]
    assert (found["world_size"], found["rank"]) == (1, 0)
    tensor = torch.ones(2, 3)
    assert all_gather(tensor) is tensor
    assert all_reduce_sum(tensor) is tensor
    assert all_gather_objects(["a"]) == [["a"]]


def test_a_group_of_one_process_is_no_group(one, tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        found = vectors_alone()
    finally:
        dist.destroy_process_group()
    assert found["statistics"] == one["statistics"]
    for batch, losses in found["plain"].items():
        for name, (value, gradient) in losses.items():
            assert value == one["plain"][batch][name][0]
            assert torch.equal(gradient, one["plain"][batch][name][1])
    for division, state in found["frequencies"].items():
        assert all(map(torch.equal, state, one["frequencies"][division]))


@PROCESSES
def test_ranks(several, processes):
    found = [part["primitives"] for part in several[processes]]
    assert [part["world_size"] for part in found] == [processes] * processes
    assert [part["rank"] for part in found] == list(range(processes))


@PROCESSES
@DIVISIONS
def test_gather_by_hand(several, processes, division):
    whole, start = torch.arange(1.0, 17, dtype=torch.float64).view(8, 2), 0
    for found, rows in zip(several[processes], CUTS[division][processes], strict=True):
        gathered, gradient = found["primitives"][division]
        assert torch.equal(gathered, whole)
        # Row i weighs i + 1 on the first rank, ten times that on the second ...: 11 or 1111 in all.
        expected = int("1" * processes) * torch.arange(1.0, 9)[start : start + rows, None].expand(-1, 2)
        assert torch.equal(gradient, expected.double())
        start += rows


@PROCESSES
def test_sum_by_hand(several, processes):
    ones = int("1" * processes)
    for found in several[processes]:
        total, gradient = found["primitives"]["sum"]
        assert total.tolist() == [3 * processes + sum(range(processes)), processes]
        assert gradient.tolist() == [5 * ones, 7 * ones]


@PROCESSES
def test_whole_numbers_and_texts(several, processes):
    for found in several[processes]:
        gathered, total = found["primitives"]["whole"]
        assert gathered.tolist() == [x for rank in range(processes) for x in (rank, 2**62 + rank)]
        assert total == processes * 2**40
        assert found["primitives"]["objects"] == [[f"text {rank}"] * rank for rank in range(processes)]


@PROCESSES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_dtype_stays(several, processes, dtype):
    for found in several[processes]:
        for name, expected in (("gather", [1.5] * processes), ("reduce", [1.5 * processes])):
            result, gradient = found["primitives"][name, dtype]
            assert (result.dtype, gradient.dtype) == (dtype, dtype)
            assert result.tolist() == expected
            assert gradient.tolist() == [processes]


@PROCESSES
@pytest.mark.parametrize(
    ("division", "dtype"), [(name, torch.float64) for name in CUTS] + [("uneven", torch.float32)]
)
def test_every_loss(one, several, processes, division, dtype):
    """The mean over the processes, as data parallel training takes it of gradients."""
    alone = one["plain"][dtype, division]
    parts = [found["plain"][dtype, division] for found in several[processes]]
    assert len(alone) == 2 * 2 * 9 + 4 + 2 * 10 + 1
    for name, (value, gradient) in alone.items():
        values = [part[name][0] for part in parts]
        assert sum(values) / processes == pytest.approx(value, rel=TOLERANCE[dtype], abs=0), name
        assert gradient.norm() > 0
        found = torch.cat([part[name][1] for part in parts], dim=1) / processes
        assert close(gradient, found) < TOLERANCE[dtype], name
        if name.split()[0].endswith(("FlopsLoss", "L1Loss")):  # every process knows the whole penalty
            assert values == pytest.approx([value] * processes, rel=TOLERANCE[dtype]), name
        else:
            assert len(set(values)) > 1, name


def test_the_losses_that_are_compared(one):
    """They are those of the formula, and the duplicates matter."""
    alone = one["plain"][torch.float64, "even"]
    rows, keys, _, _ = random_batch(21, queries=QUERIES, size=SIZE, texts=12)
    assert alone["infonce True keys"][0] == pytest.approx(infonce(rows, keys, 0.7), rel=1e-12)
    for name in ("infonce True", "kl True", "margin True", "weighted"):
        assert alone[f"{name} keys"][0] < alone[name][0]
    for name in ("infonce False", "kl complete", "kl extra"):  # where no document is left out
        assert alone[f"{name} keys"][0] == alone[name][0]


@PROCESSES
@DIVISIONS
def test_document_frequencies(one, several, processes, division):
    factors, counts, documents = one["frequencies"][division]
    for found in several[processes]:
        # Every process holds the whole state, so that a run goes on from what any one has saved.
        for mine, alone in zip(found["frequencies"][division], (factors, counts, documents), strict=True):
            assert torch.equal(mine, alone)
    assert len(factors.unique(dim=0)) == 3  # batches 0, 3 and 6
    assert documents == 8  # batch 7
    assert counts.any()


@PROCESSES
@DIVISIONS
def test_statistics_are_those_of_all_processes(one, several, processes, division):
    for found in several[processes]:
        assert found["statistics"][division] == one["statistics"][division]


def test_statistics_by_hand(one):
    """Over all texts of the two log_statistics batches, the first and the last."""
    batches = [random_batch(seed, queries=QUERIES, size=SIZE)[0] for seed in (0, 2)]
    used = [[np.array(rows) != 0 for rows in columns] for columns in batches]
    queries = np.concatenate([columns[0] for columns in used]).sum(1)
    documents = np.concatenate([rows for columns in used for rows in columns[1:]]).sum(1)
    shared = [
        [(query & document).sum() for query in columns[0] for rows in columns[1:] for document in rows]
        for columns in used
    ]
    assert one["statistics"]["even"] == {
        "query_active_dims": round(plain_statistics.fmean(queries.tolist()), 4),
        "document_active_dims": round(plain_statistics.fmean(documents.tolist()), 4),
        "document_active_dims_p95": round(float(np.percentile(documents, 95)), 4),
        "empty_documents": round(float((documents == 0).mean()), 4),
        "tokens_in_every_document": int(
            np.concatenate([rows for columns in used for rows in columns[1:]]).all(0).sum()
        ),
        "flops": round(plain_statistics.fmean(map(plain_statistics.fmean, np.array(shared).tolist())), 4),
        "document_regularizer_weight": 0.5,
    }


@PROCESSES
@DTYPES
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_loss_and_gradient_of_an_encoder(one, several, processes, name, dtype):
    alone, parts = one[name][dtype], [found[name][dtype] for found in several[processes]]
    for key, value in alone["parts"].items():
        assert value > 0
        mean = sum(part["parts"][key] for part in parts) / processes
        assert mean == pytest.approx(value, rel=TOLERANCE[dtype])
    assert alone["gradient"].norm() > 0
    for part in parts:
        assert torch.equal(alone["start"], part["start"])
        assert close(alone["gradient"], part["gradient"]) < TOLERANCE[dtype]
        assert part["statistics"] == pytest.approx(alone["statistics"], abs=2e-4)


@PROCESSES
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_weights_after_some_steps(one, several, processes, name):
    assert STEPS == 20
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        alone, parts = one[name][dtype], [found[name][dtype] for found in several[processes]]
        for part in parts:
            assert torch.equal(parts[0]["weights"], part["weights"])
        assert (alone["weights"] - parts[0]["weights"]).abs().max() < tolerance
    alone = one[name][torch.float32]
    assert (alone["weights"] - alone["start"]).abs().max() > 1e-2  # there was something to learn
