"""The run and the dry run refuse a recipe with one message."""

import json

import pytest
from transformers import AutoModel, AutoTokenizer

from st_l0.errors import InputError
from st_l0.training import dry_run, train
from st_l0.training.build import build_model
from st_l0.training.recipe import Recipe, load_recipe
from tiny_models import WORDS, save_model


@pytest.fixture(scope="module")
def models(tmp_path_factory, mlm_folder, idf_weights):
    """Name of a kind to the folder of a base model of it."""
    from st_l0 import SparseEncoder

    folder = tmp_path_factory.mktemp("models")
    AutoModel.from_pretrained(mlm_folder).save_pretrained(folder / "headless")
    AutoTokenizer.from_pretrained(mlm_folder).save_pretrained(folder / "headless")
    save_model(SparseEncoder.from_mlm(mlm_folder, idf=idf_weights, device="cpu"), folder / "trained")
    SparseEncoder.from_mlm(mlm_folder, idf=None, device="cpu").save_pretrained(str(folder / "siamese"))
    return {"mlm": mlm_folder} | {name: str(folder / name) for name in ("headless", "trained", "siamese")}


@pytest.fixture
def refused(tmp_path, models):
    """Function: a kind of base model and changes to a recipe to the messages of run and dry run."""
    (tmp_path / "texts.txt").write_text("\n".join(WORDS))

    def messages(base, changes, scores=False):
        rows = [{"query": one, "documents": [one, "the"]} for one in WORDS[:8]]
        if scores:
            rows = [{**row, "scores": [1.0, 0.0]} for row in rows]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {
            "model": {"base_model": models[base]},
            "data": {"train": str(tmp_path / "rows.jsonl")},
            "loss": {"document_regularizer_weight": 0.01},
            "training": {"max_steps": 1, "report_to": "none"},
            "output": str(tmp_path / "run"),
        }
        for section, change in changes.items():
            values[section] = {**values.get(section, {}), **change}
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(values).replace("TEXTS", str(tmp_path / "texts.txt")))
        found = []
        for attempt in (train, dry_run):
            with pytest.raises(InputError) as caught:
                attempt(load_recipe(path))
            found.append(str(caught.value))
        return found

    return messages


BINARY = {"idf": "binary"}


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        ("trained", {"model": BINARY}, "is a trained encoder: leave model.idf"),
        ("trained", {"model": {"activation": "relu"}}, "leave model.activation and model.pooling out"),
        ("mlm", {}, "has no query weights"),
        ("siamese", {}, "has no query weights"),
        ("siamese", {"model": {**BINARY, "warm_start": "TEXTS"}}, "has an MLM head of its own"),
        ("mlm", {"model": {**BINARY, "warm_start": "TEXTS"}}, "has an MLM head of its own"),
        ("headless", {"model": BINARY}, "has no MLM head: give texts"),
        (
            "mlm",
            {"model": BINARY, "data": {"documents_per_query": 1}, "loss": {"in_batch_negatives": False}},
            "has nothing to rank",
        ),
        ("mlm", {"model": BINARY, "loss": {"ranking": {"margin_mse": 1}}}, "needs teacher scores"),
        (
            "mlm",
            {"model": BINARY, "loss": {"ranking": {"kl": 1}}, "teachers": {"models": ["no:such"]}},
            "teacher 'no:such': give kind:model",
        ),
        (
            "mlm",
            {
                "model": BINARY,
                "loss": {"ranking": {"kl": 1}, "in_batch_negatives": True},
                "teachers": {"models": ["cross-encoder:x"], "extra_queries": 2},
            },
            "teacher cross-encoder:x reads query and document together",
        ),
        (
            "mlm",
            {
                "model": BINARY,
                "loss": {"ranking": {"kl": 1}},
                "teachers": {"models": [{"model": "vectors:x", "query_prompt": "query: "}]},
            },
            "teacher vectors:x takes no prompts: its texts were embedded with prompts, or without; leave",
        ),
    ],
)
def test_run_and_dry_run_agree(refused, base, changes, message):
    run, dry = refused(base, changes)
    assert message in run
    assert dry.endswith(run)  # it may say which row it looked at


def test_a_siamese_encoder_is_a_start_for_an_inference_free_one(models):
    import torch

    def build(changes):
        recipe = Recipe(
            model={"base_model": models["siamese"], **changes},
            data={"train": ["none.jsonl"]},
            loss={"document_regularizer_weight": 0.1},
            training={"max_steps": 1},
            output="none",
        )
        return build_model(recipe)

    made, own = build(BINARY), build({"queries": "model"})
    assert (made.inference_free, own.inference_free) == (True, False)
    texts = list(WORDS[:4])
    assert torch.equal(made.encode_query(texts).to_dense().sum(1).cpu(), torch.ones(4))
    documents, theirs = (model.encode_document(texts).to_dense() for model in (made, own))
    special = own.tokenizer.all_special_ids  # which weigh nothing in an inference-free encoder
    theirs[:, special] = 0
    assert torch.equal(documents, theirs)
    assert documents.any()


def test_scores_in_two_places(refused):
    changes = {"model": BINARY, "loss": {"ranking": {"kl": 1}}, "teachers": {"models": ["sparse:x"]}}
    run, dry = refused("mlm", changes, scores=True)
    assert "the data hold teacher scores" in run
    assert dry.endswith(run)


def test_an_output_that_is_something_else(refused, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "thesis.tex").write_text("years of work")
    run, dry = refused("mlm", {"model": BINARY})
    assert run == dry
    assert "holds files that are no trained model" in run
