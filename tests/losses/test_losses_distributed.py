"""Two processes with half a batch each compute what one process with the whole batch computes."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from st_l0 import SparseEncoder
from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss, SparseRetrievalLoss
from st_l0.losses.distributed import all_gather, all_reduce_sum, rank, world_size

STEPS = 20
WORDS = ["snow", "bird", "fish", "ship", "bread", "milk", "gold", "paper", "song", "river", "tree", "moon"]


class Side:
    """What one process sees of the data: all of it, or the part of its rank."""

    def __init__(self, rank=None):
        self.rank = rank

    def of(self, rows, cut=None):
        if self.rank is None:
            return rows
        cut = len(rows) // 2 if cut is None else cut
        return rows[:cut] if self.rank == 0 else rows[cut:]


def primitives(side):
    """Sums and gathers of 2 and 3 rows, of no and 2 rows, and of whole numbers."""
    found = {"world_size": world_size(), "rank": rank()}
    for name, total, cut in (("uneven", 5, 2), ("empty", 2, 0)):
        rows = side.of(torch.arange(1.0, 2 * total + 1, dtype=torch.float64).view(total, 2), cut)
        rows = rows.clone().requires_grad_()
        gathered = all_gather(rows)
        # Every process weighs the rows in its own way.
        (gathered * (10 ** world_rank(side)) * torch.arange(1.0, total + 1)[:, None]).sum().backward()
        found[name] = gathered.detach(), rows.grad
    number = torch.tensor([3.0 + world_rank(side), 1.0], requires_grad=True)
    total = all_reduce_sum(number)
    (total * torch.tensor([5.0, 7.0]) * (10 ** world_rank(side))).sum().backward()
    found["sum"] = total.detach(), number.grad
    found["whole"] = all_gather(torch.tensor([rank(), 2**62 + rank()])), all_reduce_sum(torch.tensor(2**40))
    found["half"] = all_gather(torch.ones(1, dtype=torch.bfloat16)).dtype
    return found


def world_rank(side):
    return side.rank or 0


def plain_tensors(side, cut=None):
    """Loss and gradient on float64 vectors, with duplicates within and across the halves."""
    generator = torch.Generator().manual_seed(1)
    columns = torch.randn(3, 8, 6, dtype=torch.float64, generator=generator)
    columns[1:] *= torch.rand(2, 8, 6, generator=generator) < 0.6
    texts = torch.tensor(
        [[1, 2, 3, 4, 5, 1, 7, 8], [11, 12, 13, 14, 12, 16, 17, 18], [13, 22, 11] + [23] * 5]
    )
    mine = [side.of(column, cut).clone().requires_grad_() for column in columns]
    keys = [side.of(column, cut) for column in texts]
    ranking = InfoNCELoss(0.7).compute_loss_from_embeddings(mine, keys=keys)
    unkeyed = InfoNCELoss(0.7).compute_loss_from_embeddings(mine)
    documents = torch.cat(mine[1:])
    penalties = [
        L0MaskFlopsLoss(3, positions=positions).compute_loss_from_embeddings(documents)
        for positions in (1, 2)
    ]
    (ranking + 0.3 * penalties[0] + 0.2 * penalties[1]).backward()
    gradient = torch.stack([column.grad for column in mine])
    return {
        "ranking": ranking.item(),
        "unkeyed": unkeyed.item(),
        "penalties": [p.item() for p in penalties],
        "gradient": gradient,
    }


def duplicates_across(side):
    """The two queries share their passage; then their text; then one has the other's passage as negative."""
    vectors = [side.of(torch.eye(2)), side.of(torch.eye(2)), side.of(torch.ones(2, 2))]
    cases = {
        "passage": [[1, 2], [7, 7], [8, 9]],
        "query": [[1, 1], [6, 7], [8, 9]],
        "negative": [[1, 2], [6, 7], [7, 6]],
    }
    found = {}
    for name, texts in cases.items():
        keys = [side.of(torch.tensor(column)) for column in texts]
        found[name] = InfoNCELoss().compute_loss_from_embeddings(vectors, keys=keys).item()
    return found


def texts_of_batch(seed):
    """Eight queries with a positive and a negative each; two queries share a positive."""
    generator = np.random.default_rng(seed)
    rows = [" ".join(generator.choice(WORDS, 1 + row % 4)) for row in range(24)]
    queries, positives, negatives = rows[:8], rows[8:16], rows[16:]
    positives[7] = positives[0]
    return queries, positives, negatives


def trained_encoder(side, folder):
    """Loss parts, gradients and statistics of a first batch, and the weights after some more."""
    model = SparseEncoder.from_mlm(folder, idf="binary", device="cpu").eval()  # dropout is random
    # As the trainer wraps it.
    wrapped = (
        DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)
        if world_size() > 1
        else model
    )
    loss = SparseRetrievalLoss(wrapped, InfoNCELoss(3.0), L0MaskFlopsLoss(20), 0.02, ramp_steps=5)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.02, momentum=0.9)
    found = {}
    for step in range(STEPS):
        columns = [side.of(column) for column in texts_of_batch(step)]
        features = [
            model.preprocess(column, task="query" if index == 0 else "document")
            for index, column in enumerate(columns)
        ]
        loss.set_step(step)
        parts = loss(features)
        optimizer.zero_grad()
        sum(parts.values()).backward()
        if step == 0:
            found["start"] = flat(trained.values())
            found["parts"] = {name: value.item() for name, value in parts.items()}
            found["gradient"] = flat(p.grad for p in trained.values())
            found["statistics"] = loss.pop_statistics()
        optimizer.step()
    return {**found, "last": sum(parts.values()).item(), "weights": flat(trained.values())}


def flat(tensors):
    return torch.cat([tensor.detach().flatten() for tensor in tensors]).clone()


def everything(side, folder):
    return {
        "primitives": primitives(side),
        "plain": plain_tensors(side),
        "uneven": plain_tensors(side, cut=3),
        "duplicates": duplicates_across(side),
        "encoder": trained_encoder(side, folder),
    }


def process(rank, meeting, results, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.save(everything(Side(rank), folder), f"{results}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory, mlm_folder):
    """What two processes found."""
    results = tmp_path_factory.mktemp("processes")
    mp.spawn(process, (str(results / "meeting"), str(results), mlm_folder), nprocs=2)
    return [torch.load(results / f"{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def one(mlm_folder):
    """What this process finds with all the data."""
    torch.set_num_threads(1)
    return everything(Side(), mlm_folder)


def close(one, other):
    """Largest difference, relative to the size of the first."""
    return ((one - other).norm() / one.norm()).item()


def test_one_process_is_the_identity(one):
    found = one["primitives"]
    assert (found["world_size"], found["rank"]) == (1, 0)
    tensor = torch.ones(2, 3)
    assert all_gather(tensor) is tensor
    assert all_reduce_sum(tensor) is tensor


def test_ranks(both):
    assert [found["primitives"]["world_size"] for found in both] == [2, 2]
    assert [found["primitives"]["rank"] for found in both] == [0, 1]


def test_gather_by_hand(both):
    for name, total, cuts in (("uneven", 5, [(0, 2), (2, 5)]), ("empty", 2, [(0, 0), (0, 2)])):
        whole = torch.arange(1.0, 2 * total + 1, dtype=torch.float64).view(total, 2)
        for found, (start, stop) in zip(both, cuts, strict=True):
            gathered, gradient = found["primitives"][name]
            assert torch.equal(gathered, whole)
            # Row i weighs i + 1 on the first rank and ten times that on the second: 11 in all.
            expected = 11 * torch.arange(1.0, total + 1)[start:stop, None].expand(-1, 2)
            assert torch.equal(gradient, expected.double())


def test_sum_by_hand(both):
    for found in both:
        total, gradient = found["primitives"]["sum"]
        assert total.tolist() == [3.0 + 4.0, 2.0]
        assert gradient.tolist() == [55.0, 77.0]


def test_the_dtype_stays(both):
    for found in both:
        gathered, total = found["primitives"]["whole"]
        assert gathered.tolist() == [0, 2**62, 1, 2**62 + 1]
        assert total.item() == 2**41
        assert found["primitives"]["half"] == torch.bfloat16


def test_losses_of_plain_tensors(one, both):
    alone, halves = one["plain"], [found["plain"] for found in both]
    for name in ("ranking", "unkeyed"):
        assert sum(half[name] for half in halves) / 2 == pytest.approx(alone[name], rel=1e-12)
        assert halves[0][name] != halves[1][name]
    for half in halves:  # every process knows the whole penalty
        assert half["penalties"] == pytest.approx(alone["penalties"], rel=1e-12)
    assert alone["ranking"] < alone["unkeyed"]  # duplicates were masked
    # What data parallel training does: the mean over the processes.
    gradient = torch.cat([half["gradient"] for half in halves], dim=1) / 2
    assert close(alone["gradient"], gradient) < 1e-12


def test_batches_of_unequal_size(one, both):
    alone, (three, five) = one["uneven"], [found["uneven"] for found in both]
    for name in ("ranking", "unkeyed"):
        assert (3 * three[name] + 5 * five[name]) / 8 == pytest.approx(alone[name], rel=1e-12)
    assert three["penalties"] == pytest.approx(alone["penalties"], rel=1e-12)
    assert five["penalties"] == pytest.approx(alone["penalties"], rel=1e-12)


def test_duplicates_on_another_rank_are_no_negatives(both):
    # Scores: 1 for the own passage, 0 for the other one, 1 for each of the two negatives.
    for found in both:
        duplicates = found["duplicates"]
        assert duplicates["passage"] == pytest.approx(np.log(3), rel=1e-6)
        assert duplicates["query"] == pytest.approx(np.log(3), rel=1e-6)
        assert duplicates["negative"] == pytest.approx(np.log(2 + np.exp(-1)), rel=1e-6)


def test_loss_and_gradient_of_an_encoder(one, both):
    alone, halves = one["encoder"], [found["encoder"] for found in both]
    for name, value in alone["parts"].items():
        assert value > 0
        assert sum(half["parts"][name] for half in halves) / 2 == pytest.approx(value, rel=1e-6)
    assert alone["gradient"].norm() > 0
    for half in halves:
        assert torch.equal(alone["start"], half["start"])
        assert close(alone["gradient"], half["gradient"]) < 1e-6


def test_statistics_are_those_of_all_processes(one, both):
    halves = [found["encoder"]["statistics"] for found in both]
    assert halves[0] == halves[1]
    alone = one["encoder"]["statistics"]
    for name in ("query_active_dims", "document_active_dims", "document_regularizer_weight"):
        assert halves[0][name] == pytest.approx(alone[name], abs=2e-4)


def test_weights_after_some_steps(one, both):
    alone, halves = one["encoder"], [found["encoder"] for found in both]
    assert torch.equal(halves[0]["weights"], halves[1]["weights"])
    assert (alone["weights"] - halves[0]["weights"]).abs().max() < 1e-5
    assert (alone["weights"] - alone["start"]).abs().max() > 1e-2  # there was something to learn
