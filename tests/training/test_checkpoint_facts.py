"""What a recipe and its checkpoint say is what is trained, and what the trained checkpoint says."""

import json

import numpy as np
import pytest
import sentence_transformers
import torch
import yaml

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.errors import InputError
from st_l0.training.plan import dry_run
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train
from st_l0.training.trainer import SparseRetrievalTrainer
from tiny_models import save_model

TABLE = "query_0_SparseStaticEmbedding"
ROWS = [
    {"query": "cat", "positive": "the dog", "negative": "a bird"},
    {"query": "moon", "positive": "the sun", "negative": "a fish"},
] * 4


@pytest.fixture
def base(tiny_encoder, tmp_path):
    """A checkpoint whose table is trained by whoever trains it, as stock's default has it."""
    save_model(tiny_encoder(), tmp_path / "base")
    (tmp_path / "base" / TABLE / "config.json").write_text('{"frozen": false}')
    return tmp_path / "base"


@pytest.fixture
def recipe(base, tmp_path):
    """Function: changes of the sections ``model`` and ``training`` to a recipe of two steps."""

    def load(model=None, training=None):
        data = tmp_path / "rows.jsonl"
        data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        values = {
            "model": {"base_model": str(base), "max_seq_length": 32, **(model or {})},
            "data": {"train": str(data)},
            "loss": {"document_regularizer_weight": 0.001},
            "training": {
                "max_steps": 2,
                "per_device_train_batch_size": 4,
                "learning_rate": 1e-3,
                "weight_decay": 0.5,
                "report_to": "none",
                "save_strategy": "no",
                **(training or {}),
            },
            "output": str(tmp_path / "run"),
        }
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(values))
        return load_recipe(path)

    return load


def texts_seen(monkeypatch):
    """Token ids of each column of the first batch that a training looks at."""
    seen = {}

    def look(self, model, inputs, *args, **kwargs):
        for name, value in inputs.items():
            if name.endswith("_input_ids"):
                rows = self._encoder().tokenizer.batch_decode(value, skip_special_tokens=True)
                seen.setdefault(name.removesuffix("_input_ids"), sorted(rows)[0])
        return original(self, model, inputs, *args, **kwargs)

    original = SparseRetrievalTrainer.compute_loss
    monkeypatch.setattr(SparseRetrievalTrainer, "compute_loss", look)
    return seen


def test_a_table_is_not_trained_whatever_the_checkpoint_says(recipe, base):
    before = SparseEncoder.from_pretrained(base, device="cpu")
    folder = train(recipe())
    after = SparseEncoder.from_pretrained(folder, device="cpu")
    assert np.array_equal(after.query_weights, before.query_weights)
    moved = after.encode_document("the dog").to_dense() != before.encode_document("the dog").to_dense()
    assert moved.any()
    assert json.loads((folder / TABLE / "config.json").read_text()) == {"frozen": True}


def test_a_table_is_trained_where_the_recipe_says_so(recipe, base):
    before = SparseEncoder.from_pretrained(base, device="cpu").query_weights
    after = SparseEncoder.from_pretrained(train(recipe({"queries": "trained_table"})), device="cpu")
    assert (after.query_weights != before).any()


@pytest.mark.parametrize(
    "prompts",
    [
        {"query": "snow ", "positive": "rain ", "negative": "rain "},
        {"query": "snow ", "document": "rain "},
    ],
)
def test_prompts_are_trained_with_and_saved(recipe, prompts, monkeypatch):
    seen = texts_seen(monkeypatch)
    folder = train(recipe(training={"prompts": prompts}))
    assert seen == {"query": "snow cat", "positive": "rain the dog", "negative": "rain a bird"}
    saved = json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"]
    assert saved == {"query": "snow ", "document": "rain "}
    ours = SparseEncoder.from_pretrained(folder, device="cpu")
    stock = sentence_transformers.SparseEncoder(str(folder), device="cpu")
    expected = ours.encode_query("snow cat", prompt="").to_dense()
    assert torch.equal(ours.encode_query("cat").to_dense(), expected)
    assert torch.equal(stock.encode_query("cat").to_dense(), expected)
    alone = QueryEncoder.from_pretrained(folder).encode_query("cat")
    assert np.array_equal(alone.toarray()[0], expected.numpy())
    expected = stock.encode_document("rain the dog", prompt="").to_dense()
    for one in (ours, stock):
        torch.testing.assert_close(one.encode_document("the dog").to_dense(), expected, rtol=1e-5, atol=1e-6)


def test_one_prompt_is_for_both_sides(recipe):
    folder = train(recipe(training={"prompts": "snow "}))
    assert SparseEncoder.from_pretrained(folder, device="cpu").prompts == dict.fromkeys(
        ("query", "document"), "snow "
    )


def test_the_prompts_of_a_checkpoint_are_trained_with(recipe, base, monkeypatch):
    settings = base / "config_sentence_transformers.json"
    prompts = {"query": "wind ", "document": "star "}
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"prompts": prompts}))
    seen = texts_seen(monkeypatch)
    folder = train(recipe())
    assert seen == {"query": "wind cat", "positive": "star the dog", "negative": "star a bird"}
    assert json.loads((folder / "config_sentence_transformers.json").read_text())["prompts"] == prompts


@pytest.mark.parametrize(
    ("prompts", "problem"),
    [
        ({"query": "q ", "positive": "p "}, "one prompt for all documents, not positive: 'p ', negative: ''"),
        (
            {"negative_3": "n "},
            "negative_3: 'n ' is no text for a column; there are query, positive",
        ),
        ({"question": "q "}, "question is no column of training data"),
        ({"rows": {"query": "q "}}, "must be text, not {'rows': {'query': 'q '}}"),
    ],
)
@pytest.mark.parametrize("run", [train, dry_run])
def test_prompts_that_a_model_cannot_have_are_refused(recipe, tmp_path, prompts, problem, run):
    with pytest.raises(InputError, match=r"training\.prompts") as caught:
        run(recipe(training={"prompts": prompts}))
    assert problem in str(caught.value)
    assert not (tmp_path / "run" / "model").exists()


def test_a_dry_run_says_that_it_does_not_know_the_columns(recipe, tmp_path):
    loaded = recipe(training={"prompts": {"query": "q ", "negative_3": "d "}})
    (tmp_path / "rows.jsonl").unlink()
    assert any(note.startswith("training.prompts: not checked") for note in dry_run(loaded).notes)
