"""A training with an adapter of peft: its checkpoints are merged, and it goes on from them all the same."""

import numpy as np
import pytest
import torch

from st_l0 import SparseEncoder
from st_l0.errors import InputError
from st_l0.training import train_model
from st_l0.training.evaluation import PeriodicEvaluation
from st_l0.training.recipe import load_recipe
from st_l0.training.train_model import train

peft = pytest.importorskip("peft")

WORDS = ["cat", "dog", "bird", "fish", "tree", "river", "mountain", "sun"]
TEXTS = ["the cat and a dog", "a river in the sun"]


@pytest.fixture
def recipe(tmp_path, mlm_folder):
    """Function: overrides to a recipe of 4 steps."""
    rows = "".join(
        f'{{"query": "{word}", "documents": ["the {word} in", "a {WORDS[(i + 3) % 8]}"]}}\n'
        for i, word in enumerate(WORDS)
    )
    (tmp_path / "rows.jsonl").write_text(rows)
    (tmp_path / "recipe.yaml").write_text(
        f"""
model: {{base_model: {mlm_folder}, idf: binary, max_seq_length: 16, dropout: 0.0}}
data: {{train: {tmp_path}/rows.jsonl}}
loss: {{document_regularizer_weight: 0.01}}
training: {{max_steps: 4, save_steps: 2, per_device_train_batch_size: 4, learning_rate: 0.01, use_cpu: true,
  logging_steps: 2, report_to: none}}
output: {tmp_path}/run
seed: 7
"""
    )
    return lambda *changes: load_recipe(tmp_path / "recipe.yaml", changes)


@pytest.fixture
def adapted(monkeypatch):
    """Function: how the models of trainings get their adapter; it gives the list of them."""

    def build(how="add_adapter", seed=1, made=train_model.build_model, **options):
        models = []
        config = peft.LoraConfig(
            **{"r": 2, "target_modules": ["query", "value"], "modules_to_save": ["decoder"], **options}
        )

        def with_adapter(recipe):
            model = made(recipe)
            torch.manual_seed(seed)
            if how == "add_adapter":
                model.add_adapter(config)
            elif how is not None:
                transformer = model[0].sub_modules["document"][0]
                transformer.model = peft.get_peft_model(transformer.model, config)
            models.append(model)
            return model

        monkeypatch.setattr(train_model, "build_model", with_adapter)
        return models

    return build


def vectors(model):
    model = model if isinstance(model, SparseEncoder) else SparseEncoder.from_pretrained(model, device="cpu")
    return model.encode_document(TEXTS).to_dense().numpy()


@pytest.mark.parametrize("how", ["add_adapter", "get_peft_model"])
def test_it_goes_on_as_if_it_had_not_stopped(recipe, adapted, tmp_path, how):
    models = adapted(how)
    whole = vectors(train(recipe(f"output={tmp_path}/whole")))
    np.testing.assert_allclose(whole, vectors(models[0]), rtol=1e-5, atol=2e-5)
    start = vectors(train_model.build_model(recipe()))
    assert np.abs(whole - start).max() > 0.05
    train(recipe("training.max_steps=2", "training.lr_scheduler_type=constant"))
    train(recipe("training.lr_scheduler_type=constant"), resume=True)
    adapted(how)
    constant = train(recipe("training.lr_scheduler_type=constant", f"output={tmp_path}/constant"))
    np.testing.assert_allclose(vectors(tmp_path / "run" / "model"), vectors(constant), rtol=1e-5, atol=2e-5)


def test_the_best_model_is_kept_and_not_the_last(recipe, adapted, tmp_path, monkeypatch):
    left = [0.3, 0.5, 0.4, 0.1, 0.1]

    def measure(self, model):
        found = dict.fromkeys(("mrr@10", "recall@100", "flops", "document_active_dims"), 0.5)
        return {**found, "query_active_dims": 1.0, "runtime": 0.1, "ndcg@10": left.pop(0)}

    monkeypatch.setattr(PeriodicEvaluation, "measure", measure)
    (models, beir) = adapted(), tmp_path / "beir"
    (beir / "qrels").mkdir(parents=True)
    (beir / "corpus.jsonl").write_text('{"_id": "d", "text": "the cat in"}\n')
    (beir / "queries.jsonl").write_text('{"_id": "q", "text": "cat"}\n')
    (beir / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    best = ("training.load_best_model_at_end=true", f"evaluation.collections=[{beir}]", "evaluation.steps=1")
    folder = train(recipe(*best, "training.save_steps=1"))
    checkpoints = tmp_path / "run" / "checkpoints"
    kept, last = vectors(checkpoints / "checkpoint-2"), vectors(checkpoints / "checkpoint-4")
    np.testing.assert_allclose(vectors(folder), kept, rtol=1e-5, atol=2e-5)
    np.testing.assert_allclose(vectors(models[0]), kept, rtol=1e-5, atol=2e-5)
    assert np.abs(kept - last).max() > 1e-3


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"how": None}, "is of a training with an adapter: add the same one"),
        ({"target_modules": ["key"]}, "with another adapter"),
        ({"r": 3}, "is of another model .*size mismatch"),
        ({"lora_alpha": 64}, "with its adapter, .* differs; give the same base model and adapter"),
    ],
)
def test_another_adapter_does_not_go_on(recipe, adapted, change, complaint):
    adapted()
    train(recipe("training.max_steps=2"))
    adapted(**change)
    with pytest.raises(InputError, match=complaint) as caught:
        train(recipe(), resume=True)
    assert "\n" not in str(caught.value)


def test_a_training_without_one_does_not_go_on_with_one(recipe, adapted):
    adapted(None)
    train(recipe("training.max_steps=2"))
    adapted()
    with pytest.raises(InputError, match="of a training without an adapter: take the adapter off"):
        train(recipe(), resume=True)
