"""A training that watches itself: what ends it, what is refused, and what is said at the end."""

import json
import logging

import numpy as np
import pytest
import torch
import yaml
from torch import nn
from transformers import TrainerCallback

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.losses import SparseRetrievalLoss
from st_l0.training import train_model
from st_l0.training.health import HealthWatch, first_non_finite, verdict
from st_l0.training.plan import dry_run
from st_l0.training.recipe import load_recipe
from st_l0.training.trainer import SparseRetrievalTrainer

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]
HEALTHY = {
    "document_active_dims": 50.0, "empty_documents": 0.0, "tokens_in_every_document": 0,
    "penalty_to_ranking": 0.5, "infonce_loss": 1.0, "document_regularizer_loss": 0.1,
}  # fmt: skip


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: a recipe of eight pairs, with changes of its sections."""

    def build(negatives=True, **changes):
        path = tmp_path / "rows.jsonl"
        rows = [
            {"query": word, "positive": f"the {word} and", **({"negative": "a dog in"} if negatives else {})}
            for word in WORDS
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {
            "model": {"base_model": mlm_folder, "idf": "binary", "max_seq_length": 16, "dropout": 0.0},
            "data": {"train": str(path)},
            "loss": {"document_regularizer_weight": 0.01},
            "training": {
                "max_steps": 8, "per_device_train_batch_size": 4, "learning_rate": 1e-3, "use_cpu": True,
                "logging_steps": 1, "save_steps": 1, "save_total_limit": 2, "report_to": "none",
            },
            "output": str(tmp_path / "run"),
        }  # fmt: skip
        for section, change in changes.items():
            values[section] = {**values[section], **change} if isinstance(change, dict) else change
        file = tmp_path / "recipe.yaml"
        file.write_text(yaml.safe_dump(values))
        return load_recipe(file)

    return build


def refusal(recipe):
    with pytest.raises(InputError) as caught:
        train_model.train(recipe)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def checkpoints(tmp_path):
    return sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("checkpoint-*"))


def break_after(monkeypatch, step, spoil):
    """Spoil the model at the end of a step, and give the list of steps that ended."""
    ended = []

    class Breaks(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            ended.append(state.global_step)
            if state.global_step == step:
                with torch.no_grad():
                    spoil(model)

    class Trainer(SparseRetrievalTrainer):
        def __init__(self, *args, callbacks=(), **kwargs):
            super().__init__(*args, callbacks=[*callbacks, Breaks()], **kwargs)

    monkeypatch.setattr(train_model, "SparseRetrievalTrainer", Trainer)
    return ended


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_never_saved(recipe, tmp_path, monkeypatch, value):
    ended = break_after(monkeypatch, 3, lambda model: next(model.parameters()).fill_(value))
    message = refusal(recipe())
    assert message.startswith("step 3: the weight ")
    assert str(tmp_path / "run" / "checkpoints" / "checkpoint-2") in message
    assert ended == [1, 2, 3]
    assert checkpoints(tmp_path) == ["checkpoint-1", "checkpoint-2"]
    for folder in (tmp_path / "run" / "checkpoints").iterdir():
        assert first_non_finite(SparseEncoder.from_pretrained(folder, device="cpu")) is None
    assert not (tmp_path / "run" / "model").exists()


def test_between_two_checkpoints_the_next_step_ends_it(recipe, tmp_path, monkeypatch):
    ended = break_after(monkeypatch, 3, lambda model: next(model.parameters()).fill_(float("nan")))
    message = refusal(recipe(training={"save_steps": 2}))
    assert message.startswith("step 4: the weight ")
    assert ended == [1, 2, 3]
    assert checkpoints(tmp_path) == ["checkpoint-2"]


@pytest.mark.parametrize(("value", "term"), [("nan", "infonce_loss (nan)"), ("inf", "infonce_loss (inf)")])
def test_a_loss_that_is_not_finite_ends_it_before_a_weight_moves(recipe, monkeypatch, value, term):
    forward, steps = SparseRetrievalLoss.forward, []

    def spoiled(self, *args):
        terms = forward(self, *args)
        steps.append(next(self.model.parameters()).detach().clone())
        if len(steps) == 3:
            terms["infonce_loss"] = terms["infonce_loss"] * float(value)
        return terms

    monkeypatch.setattr(SparseRetrievalLoss, "forward", spoiled)
    models = []
    build = train_model.build_model
    monkeypatch.setattr(train_model, "build_model", lambda recipe: models.append(build(recipe)) or models[0])
    # Accumulated: the third batch is the first of the second step.
    message = refusal(recipe(training={"gradient_accumulation_steps": 2, "save_strategy": "no"}))
    assert message.startswith(f"step 2: the {term} is not finite")
    assert "no checkpoint was written" in message
    assert torch.equal(next(models[0].parameters()), steps[2])


def test_a_gradient_that_is_not_finite_is_named():
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[1.0, float("inf")]])
    model.bias.grad = torch.tensor([1.0])
    watch = HealthWatch("nowhere")
    watch.observe_terms({"infonce_loss": torch.tensor(1.0)})
    with pytest.raises(InputError, match="step 5: the gradient of weight is not finite"):
        watch.check_step(5, torch.tensor(float("inf")), model)
    watch.check_step(6, torch.tensor(float("inf")), model, scaled=True)  # what a loss scaler skips
    watch.observe_terms({"infonce_loss": torch.tensor(float("nan"))})
    with pytest.raises(InputError, match=r"step 7: the infonce_loss \(nan\)"):
        watch.check_step(7, torch.tensor(1.0), model, scaled=True)


def test_documents_that_are_all_empty_end_it(recipe, tmp_path):
    loss, training = {"document_regularizer_weight": 1000.0}, {"max_steps": 60, "learning_rate": 0.1}
    message = refusal(recipe(loss=loss, training={**training, "save_strategy": "no"}))
    assert "every document is empty" in message
    assert "had no gradient" in message
    assert not (tmp_path / "run" / "model").exists()


@pytest.fixture
def silenced(monkeypatch):
    """Every trained model is silent: its decoder's bias is far below 0."""
    build = train_model.build_model

    def built(recipe):
        model = build(recipe)
        decoders = [weight for name, weight in model.named_parameters() if name.endswith("predictions.bias")]
        with torch.no_grad():
            decoders[0].fill_(-100.0)
        return model

    monkeypatch.setattr(train_model, "build_model", built)


@pytest.mark.usefixtures("silenced")
def test_a_model_of_empty_documents_is_not_saved_unless_told_to(recipe, tmp_path):
    few = {"max_steps": 2, "save_strategy": "no", "logging_strategy": "no"}
    message = refusal(recipe(training=few))
    assert message.startswith("all 8 documents that were looked at are empty, ")
    assert str(tmp_path / "run" / "model") in message
    folder = train_model.train(
        recipe(training={**few, "max_steps": 15, "logging_strategy": "steps"}, ignore_health=True)
    )
    assert not SparseEncoder.from_pretrained(folder, device="cpu").encode_document(WORDS).to_dense().any()
    assert "100% of the documents are empty" in (folder / "README.md").read_text()


def test_one_pair_a_batch_has_nothing_to_rank(recipe):
    alone = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, "max_steps": 1}
    pairs = recipe(negatives=False, training=alone)
    message = refusal(pairs)
    assert message.startswith("training.per_device_train_batch_size is 1, or there is one row, and the data")
    with pytest.raises(InputError) as caught:
        dry_run(pairs)
    assert str(caught.value) == message
    assert dry_run(pairs, devices=2).queries_at_once == 2
    assert refusal(recipe(negatives=False, data={"limit": 1})) == message
    train_model.train(recipe(training={**alone, "save_strategy": "no"}))  # with negatives


def test_the_verdict_is_said_and_kept(recipe, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "st_l0"):
        folder = train_model.train(recipe(training={"save_strategy": "no"}))
    said = [record.getMessage() for record in caplog.records if record.name == "st_l0.training.train_model"]
    state = json.loads((tmp_path / "run" / "trainer_state.json").read_text())
    assert state["stateful_callbacks"]["health"]["attributes"]["findings"] == said
    assert said == verdict(state["log_history"], 127)
    card = (folder / "README.md").read_text()
    assert card.count("## Training Health\n") == 1
    assert all(f"- {sentence}\n" in card for sentence in said)
    assert card.index("## Training Health") < card.index("## Training Details")
    assert_public(folder, card, tmp_path)


def assert_public(folder, card, home):
    """A trained model says how it was trained, and nothing of this machine but its own place."""
    facts = json.loads((folder / "training.json").read_text())
    assert facts["facts"]["Steps"].split()[0] == str(recorded_steps(folder))
    assert {
        "Start",
        "Data",
        "Examples",
        "Ranking loss",
        "Penalty on documents",
        "Seed",
        "Hardware",
        "Wall time",
    } <= set(facts["facts"])
    assert str(home) not in json.dumps(facts)
    assert str(home) not in card.replace(str(folder), "")
    assert "loss:SparseRetrievalLoss" in card
    assert "NoneType" not in card
    assert "output:" not in facts["recipe"]


def recorded_steps(folder):
    return json.loads((folder.parent / "trainer_state.json").read_text())["global_step"]


def lines(count=10, **changes):
    """A log that falls from 2 to 1 and is well otherwise; a change is a number or one for each line."""
    log = [{**HEALTHY, "infonce_loss": float(loss)} for loss in np.linspace(2, 1, count)]
    for name, change in changes.items():
        for place, line in enumerate(log):
            line[name] = change[place] if isinstance(change, list) else change
    return [*log, {"train_runtime": 1.0, "train_loss": 0.0}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"empty_documents": 0.01}, []),
        ({"empty_documents": [0.5] * 8 + [0.0] * 2}, []),  # over by the end
        ({"empty_documents": 0.25}, ["25% of the documents are empty"]),
        (
            {"document_active_dims": [52.0] * 5 + [2.0] * 5},
            ["documents have 2 active dims, of 52 at the start"],
        ),
        ({"document_active_dims": 2.0}, []),  # as at the start
        ({"document_active_dims": 501.0}, ["documents have 501 active dims of 1,000"]),
        ({"tokens_in_every_document": [3] * 9 + [2]}, ["2 tokens are in every document"]),
        ({"tokens_in_every_document": [3] * 9 + [0]}, []),
        ({"penalty_to_ranking": 25.0}, ["the penalty pulls 25 times as hard"]),
        ({"infonce_loss": 0.0}, ["infonce_loss was 0 in every line of the log"]),
        ({"infonce_loss": 1.5}, ["infonce_loss has not moved (1.5 at the start, 1.5 at the end)"]),
        ({"count": 9, "infonce_loss": 1.5}, []),  # too few to tell
        ({"kl_loss": [2.0] * 8 + [1.9] * 2}, []),
    ],
)
def test_verdicts(changes, expected):
    found = verdict(lines(**changes), 1000)
    assert len(found) == len(expected)
    assert all(sentence.startswith(start) for sentence, start in zip(found, expected, strict=True))


def test_no_log_no_verdict():
    assert verdict([{"train_runtime": 1.0}], 1000) == []
