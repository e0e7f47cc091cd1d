"""Which rows a training sees, against accelerate's own division of batches and in real processes."""

import json
from types import SimpleNamespace

import pytest
from accelerate.data_loader import BatchSamplerShard
from datasets import Dataset
from sentence_transformers.base.sampler import DefaultBatchSampler, NoDuplicatesBatchSampler
from torch.utils.data import SequentialSampler

from launching import run
from st_l0.errors import InputError
from st_l0.training.rounds import left_out, rounds_of_an_epoch, warn_of_duplicates


def settings(size, **others):
    values = {"dataloader_drop_last": False, "max_steps": -1, "gradient_accumulation_steps": 1}
    return SimpleNamespace(per_device_train_batch_size=size, **{**values, **others})


@pytest.mark.parametrize("rows", [3, 8, 10, 12, 13, 15, 16, 20])
@pytest.mark.parametrize("devices", [1, 2, 3])
def test_rounds_are_those_of_accelerate(rows, devices):
    def batches(process):
        # As sentence-transformers has it: several devices always drop what fills no batch.
        sampler = DefaultBatchSampler(SequentialSampler(range(rows)), batch_size=4, drop_last=devices > 1)
        return list(BatchSamplerShard(sampler, devices, process, even_batches=False))

    found = [batches(process) for process in range(devices)]
    rounds = rounds_of_an_epoch(settings(4), rows, devices=devices)
    assert [len(one) for one in found] == [rounds] * devices
    seen = sum(len(batch) for one in found for batch in one)
    lost = left_out(settings(4), rows, devices=devices)
    assert lost is None if seen == rows else lost.startswith(f"an epoch leaves out {rows - seen} of {rows} ")


def test_what_is_left_out_by_hand():
    assert left_out(settings(4), 15, devices=2) == (
        "an epoch leaves out 7 of 15 examples, which fill no batch of 8 on 2 devices"
    )
    assert left_out(settings(4, dataloader_drop_last=True), 15, devices=1) == (
        "an epoch leaves out 3 of 15 examples, which fill no batch of 4"
    )
    assert left_out(settings(4), 16, devices=2) is None


def duplicates(queries, rows, *, size, devices=1, **others):
    data = Dataset.from_dict(
        {"query": [f"q{i % queries}" for i in range(rows)], "positive": [f"p{i}" for i in range(rows)]}
    )
    sampler = NoDuplicatesBatchSampler(data, batch_size=size, drop_last=devices > 1)
    warn_of_duplicates(sampler, settings(size, **others), devices=devices)


def test_rows_of_few_queries_are_lost_and_counted(caplog):
    duplicates(4, 64, size=16)  # 4 batches, in each every query once
    assert caplog.messages == [
        "training.batch_sampler: 4 batches of 16 hold 16 rows instead of 64: rows that share a text are "
        "never in one batch; take smaller batches, or fewer rows of one query"
    ]


@pytest.mark.parametrize(
    ("queries", "size", "devices"),
    [
        (64, 16, 1),
        (4, 4, 1),
        (64, 15, 2),  # 2 rounds of 30; the last 4 rows are no matter of duplicates
    ],
)
def test_nothing_is_said_where_all_rows_have_room(caplog, queries, size, devices):
    duplicates(queries, 64, size=size, devices=devices)
    assert not caplog.messages


def test_batches_that_are_not_trained_are_not_counted(caplog):
    duplicates(4, 64, size=16, max_steps=1, gradient_accumulation_steps=2)
    assert caplog.messages[0].startswith("training.batch_sampler: 2 batches of 16 hold 8 rows instead of 32")


def test_nothing_to_train_is_refused():
    with pytest.raises(InputError) as caught:
        duplicates(4, 64, size=16, devices=2)  # whose batches of 4 are dropped
    assert str(caught.value) == (
        "training.batch_sampler: 64 rows make no batch of 16 on each of 2 devices: rows that share a text "
        "are never in one batch; take smaller batches, or fewer rows of one query"
    )


def test_an_epoch_that_ends_early_is_told(caplog):
    # 15 queries once and one 49 times: a batch of all 16, 48 rows of the one, and again in two more passes.
    data = Dataset.from_dict(
        {"query": [f"q{max(0, i - 48)}" for i in range(64)], "positive": [f"p{i}" for i in range(64)]}
    )
    sampler = NoDuplicatesBatchSampler(data, batch_size=16, drop_last=True)
    warn_of_duplicates(sampler, settings(16, dataloader_drop_last=True), devices=1)
    assert caplog.messages[-2].startswith("training.batch_sampler: 3 batches of 16 hold ")
    assert " rows instead of 64: " in caplog.messages[-2]
    assert caplog.messages[-1] == (
        "training.batch_sampler: an epoch ends after 3 of 4 rounds, the training before its last step"
    )


_SCRIPT = """
import json, os, pathlib, sys
from datasets import Dataset, Features, IterableDataset, Value
from sentence_transformers import SparseEncoderTrainingArguments
from st_l0 import SparseEncoder
from st_l0.losses import FlopsLoss, InfoNCELoss, SparseRetrievalLoss
from st_l0.training.trainer import SparseRetrievalTrainer

folder, base = pathlib.Path(sys.argv[1]), sys.argv[2]
words = "cat dog bird fish tree river mountain sun moon star rain snow wind red green blue".split()
found = {}

def train(name, data, **options):
    model = SparseEncoder.from_mlm(base, idf="binary", device="cpu")
    arguments = SparseEncoderTrainingArguments(
        str(folder / name), use_cpu=True, per_device_train_batch_size=4, save_strategy="no", report_to="none",
        router_mapping={"query": "query", "positive": "document"}, ddp_find_unused_parameters=False,
        learning_rate=0.0, disable_tqdm=True, **options,
    )
    seen = []
    class Trainer(SparseRetrievalTrainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            tokens = self.model.tokenizer.batch_decode(inputs["query_input_ids"], skip_special_tokens=True)
            seen.extend(tokens)
            return super().compute_loss(model, inputs, *args, **kwargs)
    loss = SparseRetrievalLoss(model, InfoNCELoss(), FlopsLoss(), 0.0)
    trainer = Trainer(model=model, args=arguments, train_dataset=data, loss=loss)
    trainer.train()
    found[name] = [trainer.state.global_step, seen]

def rows():
    for word in words[:16]:
        yield {"query": word, "positive": f"a {word} and the"}

texts = Features({"query": Value("string"), "positive": Value("string")})
train("stream", IterableDataset.from_generator(rows, features=texts), max_steps=2)
for count in (10, 12, 15):
    train(str(count), Dataset.from_list(list(rows())[:count]), num_train_epochs=1)
(folder / f"{os.environ['RANK']}.json").write_text(json.dumps(found))
"""


def test_two_processes(tmp_path, mlm_folder):
    """A stream is shared out, and of 10, 12 and 15 rows each process trains one batch of 4."""
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    done = run(2, script, tmp_path, mlm_folder)
    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (json.loads((tmp_path / f"{process}.json").read_text()) for process in (0, 1))
    assert one["stream"][0] == two["stream"][0] == 2
    seen = [*one["stream"][1], *two["stream"][1]]
    assert len(seen) == 16 and len(set(seen)) == 16
    for rows in ("10", "12", "15"):
        (steps, first), (others, second) = one[rows], two[rows]
        assert steps == others == rounds_of_an_epoch(settings(4), int(rows), devices=2) == 1
        assert len(first) == len(second) == 4 and not {*first} & {*second}
