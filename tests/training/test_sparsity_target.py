"""A sparsity that is asked for: what is measured, and when λ_d moves, in tiny trainings."""

import json
import math
import random

import pytest
import torch
import yaml

from launching import run
from st_l0 import SparseEncoder
from st_l0.data import Collection, read_collection, write_collection
from st_l0.errors import InputError
from st_l0.evaluation import evaluate
from st_l0.training.build import build_model
from st_l0.training.plan import dry_run
from st_l0.training.recipe import load_recipe
from st_l0.training.sparsity_target import SparsitySample, SparsityTarget
from st_l0.training.train_model import train
from st_l0.training.weight_controller import WeightController
from tiny_models import WORDS

NOUNS = WORDS[9:33]


def texts(count, seed):
    draw = random.Random(seed)
    return [" ".join(draw.choices(NOUNS, k=draw.randint(4, 9))) for _ in range(count)]


def collection(folder, seed, documents=60, queries=30):
    """Documents, and queries of two words; judgements that only `evaluate` wants."""
    corpus = {f"d{i}": text for i, text in enumerate(texts(documents, seed))}
    asked = {f"q{i}": " ".join(text.split()[:2]) for i, text in enumerate(texts(queries, seed + 1))}
    write_collection(Collection(folder.name, corpus, asked, {one: {"d0": 1} for one in asked}), folder)
    return str(folder)


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: overrides to the recipe of a short training with a target."""
    rows = [{"query": text.split()[0], "positive": text} for text in texts(64, 5)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16, "dropout": 0.0},
        "data": {"train": str(tmp_path / "rows.jsonl")},
        "loss": {
            "document_regularizer_weight": 0.01,
            "ramp_steps": 2,
            "target_flops": 0.4,
            "target_sample": {"collections": collection(tmp_path / "dev", 7), "steps": 2},
        },
        "training": {
            "max_steps": 6,
            "per_device_train_batch_size": 8,
            "learning_rate": 1e-3,
            "use_cpu": True,
            "logging_steps": 1,
            "save_steps": 2,
            "report_to": "none",
        },
        "output": str(tmp_path / "run"),
        "seed": 7,
    }

    def build(*overrides):
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
        return load_recipe(tmp_path / "recipe.yaml", overrides)

    return build


def dims_for(value):
    return ("loss.target_flops=null", f"loss.target_active_dims={value}")


def state_of(output):
    return json.loads((output / "trainer_state.json").read_text())


def logged(output, key):
    return {line["step"]: line[key] for line in state_of(output)["log_history"] if key in line}


def same(*folders):
    one, other = (SparseEncoder.from_pretrained(folder, device="cpu").state_dict() for folder in folders)
    return all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("override", [(), dims_for(9)])
def test_it_measures_what_evaluate_measures(recipe, tmp_path, override):
    other = collection(tmp_path / "other", 11, documents=20, queries=5)
    both = f"loss.target_sample.collections=[{tmp_path / 'dev'}, {other}]"
    loaded = recipe(both, "loss.target_sample.documents=60", *override)
    model = build_model(loaded)
    name = loaded.loss.target[0]
    found = SparsitySample(loaded.loss.target_sample, name).measure(model)
    reports = [
        evaluate(model, read_collection(folder), bm25=False)["model"] for folder in (tmp_path / "dev", other)
    ]
    cost = {"target_flops": "flops", "target_active_dims": "document_active_dims"}[name]
    assert found == pytest.approx(sum(report[cost] for report in reports) / 2)


def test_a_sample_is_a_part_and_always_the_same(recipe):
    sample = recipe("loss.target_sample.documents=10", "loss.target_sample.queries=4").loss.target_sample
    one = SparsitySample(sample, "target_flops")
    assert (one.documents, one.queries) == (10, 4)
    assert SparsitySample(sample, "target_flops")._documents == one._documents
    assert len({*one._documents[0]}) > 5
    assert SparsitySample(sample, "target_active_dims").queries == 0


@pytest.mark.parametrize("override", [(), dims_for(8)])
def test_a_training_comes_to_its_target_on_unseen_text(recipe, tmp_path, override, capfd):
    loaded = recipe(
        *("training.max_steps=260", "loss.ramp_steps=40", "loss.target_sample.steps=5"),
        *("training.logging_steps=20", "training.save_strategy='no'", *override),
        f"loss.target_sample.collections={collection(tmp_path / 'more', 7, documents=250)}",
    )
    name, target = loaded.loss.target
    start = SparsitySample(loaded.loss.target_sample, name).measure(build_model(loaded))
    assert start > 2 * target
    folder = train(loaded)
    unseen = read_collection(collection(tmp_path / "unseen", 23, documents=300, queries=300))
    model = SparseEncoder.from_pretrained(folder, device="cpu")
    found = evaluate(model, unseen, bm25=False)["model"]
    cost = {"target_flops": "flops", "target_active_dims": "document_active_dims"}[name]
    assert found[cost] == pytest.approx(target, rel=0.1)  # of a sample of 250 documents
    key = {"target_flops": "sample_flops", "target_active_dims": "sample_active_dims"}[name]
    assert list(logged(tmp_path / "run", key).values())[-1] == pytest.approx(target, rel=0.05)
    shown = capfd.readouterr().out
    assert {"target_flops": "sample FLOPS", "target_active_dims": "sample dims"}[name] in shown
    state = state_of(tmp_path / "run")
    assert not [
        one for one in state["stateful_callbacks"]["health"]["attributes"]["findings"] if "target" in one
    ]
    card = (folder / "README.md").read_text()
    assert f"for a target of {target:g}" in card


def shares(*steps, of):
    """Of the highest learning rate, after these steps of a linear decay."""
    return [1 - step / of for step in steps]


def test_the_weight_moves_after_the_ramp_only(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(SparsitySample, "measure", lambda self, model: 0.8)  # twice the target
    train(recipe("loss.ramp_steps=3", "training.max_steps=8"))
    weights = logged(tmp_path / "run", "document_regularizer_weight")
    # Measured after steps 2, 4, 6 and 8: the first moves nothing, and the last comes too late.
    controller = WeightController(0.4, 0.01)
    controller.note(0.8, sum(shares(1, 2, of=8)))
    after = [
        controller.update(0.8, sum(shares(step - 1, step, of=8)), 2 * (1 - step / 8), (8 - step) / 2)
        for step in (4, 6)
    ]
    assert 0.01 < after[0] < after[1]
    expected = [0.01 / 9, 0.04 / 9, 0.01, 0.01, after[0], after[0], after[1], after[1]]
    assert list(weights.values()) == pytest.approx(expected, rel=1e-6)
    assert logged(tmp_path / "run", "sample_flops") == dict.fromkeys(range(2, 9), 0.8)


def test_the_weight_moves_before_documents_fall_below_the_target(recipe, tmp_path, monkeypatch):
    left = [4.0, 1.2, 0.4, 0.4, 0.4, 0.4]  # 1.2 * 1.2 / 4 is below the target
    monkeypatch.setattr(SparsitySample, "measure", lambda self, model: left.pop(0))
    train(recipe("loss.ramp_steps=9", "training.max_steps=11"))
    weights = logged(tmp_path / "run", "document_regularizer_weight")
    assert [weights[step] for step in range(1, 5)] == pytest.approx(
        [0.01 * (step / 9) ** 2 for step in range(1, 5)]
    )
    controller = WeightController(0.4, 0.01)
    controller.note(4.0, sum(shares(1, 2, of=11)))
    controller.weight = weights[4]
    for step, measured in ((4, 1.2), (6, 0.4), (8, 0.4), (10, 0.4)):
        progress, ahead = sum(shares(step - 1, step, of=11)), 2 * (1 - step / 11)
        moved = controller.update(measured, progress, ahead, (11 - step) / 2)
        assert weights[step + 1] == weights.get(step + 2, weights[11]) == pytest.approx(moved)
    assert weights[9] < weights[7] < weights[5]  # on the target, after such a fall


def test_measuring_disturbs_nothing(recipe, tmp_path, monkeypatch):
    """With dropout, so that both the training mode and the random numbers tell."""
    monkeypatch.setattr(WeightController, "update", lambda self, *args: self.weight)
    one = train(recipe("model.dropout=0.3"))
    without = ("loss.target_flops=null", "loss.target_sample=null", f"output={tmp_path}/without")
    assert same(one, train(recipe("model.dropout=0.3", *without)))


def test_autocast_is_off_while_it_measures(recipe, monkeypatch):
    found = []
    measure = SparsitySample.measure
    monkeypatch.setattr(
        SparsitySample, "measure", lambda self, model: (found.append(measure(self, model)), found[-1])[1]
    )
    loaded = recipe("training.bf16=true", "training.learning_rate=0", *dims_for(9))
    folder = train(loaded)
    sample = SparsitySample(loaded.loss.target_sample, "target_active_dims")
    exact = measure(sample, SparseEncoder.from_pretrained(folder, device="cpu"))
    assert found == [exact] * 4  # after steps 2, 4 and 6, and at the end


def test_a_training_goes_on_with_its_weight(recipe, tmp_path):
    steady = "training.lr_scheduler_type=constant"  # of which the length changes nothing
    whole = train(recipe(steady, f"output={tmp_path}/whole"))
    train(recipe(steady, "training.max_steps=4"))
    folder = train(recipe(steady), resume=True)
    for key in ("document_regularizer_weight", "sample_flops"):
        found = logged(tmp_path / "run", key)
        assert found == logged(tmp_path / "whole", key) and len({*found.values()}) > 2
    assert same(whole, folder)
    with pytest.raises(InputError, match=r"other loss\.target_flops"):
        train(recipe(steady, "loss.target_flops=0.5", "training.max_steps=8"), resume=True)


def test_another_target_goes_on_from_the_weight(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(SparsitySample, "measure", lambda self, model: 0.8)
    train(recipe())  # moved after steps 2, 4 and 6
    moved = 0.01 * math.e**2  # after the steps 2 and 4, as far as it may; the last one comes too late
    train(recipe("training.max_steps=10", *dims_for(1.6)), resume=True, changed=True)
    weights = logged(tmp_path / "run", "document_regularizer_weight")
    assert weights[7] == weights[8] == pytest.approx(moved)
    controller = WeightController(1.6, 0.01)  # which knows nothing of FLOPS
    controller.weight = moved
    after = controller.update(0.8, sum(shares(7, 8, of=10)), 2 * (1 - 8 / 10), 1)
    assert weights[9] == weights[10] == pytest.approx(after)


def test_two_processes_move_alike(recipe, tmp_path):
    loaded = recipe()
    (tmp_path / "both.yaml").write_text(loaded.to_yaml())
    script = tmp_path / "script.py"
    script.write_text(
        "import os, pathlib\n"
        "from st_l0.training import sparsity_target as targets\n"
        "from st_l0.training.recipe import load_recipe\n"
        "from st_l0.training.train_model import train\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "def note(name, text):\n"
        "    with (folder / f'{name}-{os.environ[\"RANK\"]}').open('a') as file:\n"
        "        file.write(f'{text!r} ')\n"
        "measure, update = targets.SparsitySample.measure, targets.WeightController.update\n"
        "def measuring(self, model):\n"
        "    note('measured', (found := measure(self, model)))\n"
        "    return found\n"
        "def moving(self, *args):\n"
        "    note('moved', (found := update(self, *args)))\n"
        "    return found\n"
        "targets.SparsitySample.measure, targets.WeightController.update = measuring, moving\n"
        "train(load_recipe(folder / 'both.yaml'))\n"
    )
    done = run(2, script)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len((tmp_path / "measured-0").read_text().split()) == 4
    assert not (tmp_path / "measured-1").exists()
    moved = (tmp_path / "moved-0").read_text()
    assert moved == (tmp_path / "moved-1").read_text() and len({*moved.split()}) == 2


def test_a_target_that_was_missed_is_said(recipe, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(SparsitySample, "measure", lambda self, model: 0.8)
    train(recipe())
    (found,) = [one for one in caplog.messages if "target_sample" in one]
    controller = WeightController(0.4, 0.01)
    for step in (2, 4, 6):
        controller.update(0.8, sum(shares(step - 1, step, of=6)), 2 * (1 - step / 6), (6 - step) / 2)
    assert found == (
        "FLOPS of loss.target_sample: 0.8, where loss.target_flops is 0.4: train longer, or start from a "
        f"nearer loss.document_regularizer_weight, about {controller.settled:.2g}"
    )
    assert found in state_of(tmp_path / "run")["stateful_callbacks"]["health"]["attributes"]["findings"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.target_flops=0"], "loss.target_flops must be more than 0, not 0.0"),
        (["loss.target_active_dims=5"], "loss.target_active_dims excludes loss.target_flops: keep one"),
        (
            ["loss.target_sample=null"],
            "loss.target_flops needs loss.target_sample, the text on which it is measured",
        ),
        (
            ["loss.target_flops=null"],
            "loss.target_sample has no effect without loss.target_flops or loss.target_active_dims",
        ),
        (
            ["loss.document_regularizer_weight=0"],
            "loss.document_regularizer_weight must be more than 0, as loss.target_flops moves it from there",
        ),
        (
            ["loss.target_sample.steps=6"],
            "loss.target_sample.steps must leave a measurement between ramp (step 2) and end (6)",
        ),
        (
            ["training.deepspeed=x.json"],
            "training.deepspeed does not go with loss.target_sample, which one process measures alone",
        ),
        (["loss.target_sample.collections=[]"], "loss.target_sample.collections must not be empty"),
    ],
)
def test_what_cannot_be_is_refused(recipe, overrides, message):
    with pytest.raises(InputError) as caught:
        recipe(*overrides)
    assert str(caught.value).endswith(message)


def test_a_sample_that_is_not_there_is_refused_before_the_first_step(recipe, tmp_path):
    (tmp_path / "dev" / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"no queries\.jsonl"):
        train(recipe())
    SparsityTarget(recipe(*dims_for(5)).loss, None, None)  # which needs no queries


def test_a_dry_run_states_it(recipe, tmp_path):
    planned = dry_run(recipe())
    # 60 documents every 2 steps of 8 documents, which count three times.
    assert planned.target == (
        "FLOPS 0.4: λ_d moves from 0.01, between 1e-05 and 10, every 2 steps, 2 times after the ramp; each "
        "measures 60 documents and 30 queries, about 125.0% of the training's time"
    )
    assert (str(tmp_path / "dev"), "there") in planned.sources
    gone = dry_run(
        recipe(f"loss.target_sample.collections={tmp_path}/gone", *dims_for(12), "loss.threshold=20")
    )
    assert gone.target == (
        "active dims of a document 12: λ_d moves from 0.01, between 1e-05 and 10, every 2 steps, 2 times "
        f"after the ramp; what it costs is not known, {tmp_path}/gone is not there"
    )
    assert "loss.target_active_dims: documents of up to 20 active dims pay nothing" in gone.notes
    assert dry_run(recipe("loss.target_flops=null", "loss.target_sample=null")).target == "none"
