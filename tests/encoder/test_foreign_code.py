"""Code that comes with a checkpoint runs where it is allowed, and nowhere else."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from st_l0 import QueryEncoder, SparseEncoder, cli
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.pretrained import ForeignCodeError
from st_l0.errors import InputError
from st_l0.hub.exporting import export
from st_l0.teachers import load_teacher
from st_l0.training.build import build_model
from st_l0.training.mlm import train_mlm
from st_l0.training.plan import dry_run
from st_l0.training.recipe import Recipe
from tiny_models import DOCUMENTS, assert_same_model, dense, save_model

DOCUMENT, TABLE = "document_0_Transformer", "query_0_SparseStaticEmbedding"
MODEL = """
from transformers import BertConfig, BertForMaskedLM

class PlantedConfig(BertConfig):
    model_type = "planted"

class PlantedModel(BertForMaskedLM):
    config_class = PlantedConfig
"""
TOKENIZER = """
from transformers import BertTokenizerFast

class PlantedTokenizer(BertTokenizerFast):
    pass
"""
MODULE = """
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding

class PlantedTable(SparseStaticEmbedding):
    pass

class PlantedRouter(Router):
    pass
"""


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """A file that planted code makes; modules of checkpoints are kept in this test's folder."""
    for module in ("transformers.dynamic_module_utils", "transformers.utils.hub"):
        monkeypatch.setattr(f"{module}.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    return tmp_path / "ran"


def plant(folder, ran, code):
    """Code in the root of a checkpoint, where transformers looks for it."""
    (folder / "planted.py").write_text(f"open({str(ran)!r}, 'w').close()\n{code}")


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def plant_model(folder, ran, root=None):
    plant(root or folder, ran, MODEL)
    names = {"AutoConfig": "planted.PlantedConfig", "AutoModelForMaskedLM": "planted.PlantedModel"}
    edit(folder / "config.json", model_type="planted", architectures=["PlantedForMaskedLM"], auto_map=names)


def plant_tokenizer(folder, ran, root=None):
    plant(root or folder, ran, TOKENIZER)
    names = {"AutoTokenizer": [None, "planted.PlantedTokenizer"]}
    edit(folder / "tokenizer_config.json", tokenizer_class="PlantedTokenizer", auto_map=names)


def plant_table(folder, ran):
    plant(folder, ran, MODULE)
    file = folder / "router_config.json"
    content = json.loads(file.read_text())
    content["types"][TABLE] = "planted.PlantedTable"
    file.write_text(json.dumps(content))


def plant_router(folder, ran):
    plant(folder, ran, MODULE)
    file = folder / "modules.json"
    content = json.loads(file.read_text())
    content[0]["type"] = "planted.PlantedRouter"
    file.write_text(json.dumps(content))


PLANTED = {
    "model": lambda folder, ran: plant_model(folder / DOCUMENT, ran, folder),
    "tokenizer": lambda folder, ran: plant_tokenizer(folder / DOCUMENT, ran, folder),
    "query tokenizer": lambda folder, ran: plant_tokenizer(folder / TABLE, ran, folder),
    "table": plant_table,
    "router": plant_router,
}


@pytest.fixture
def checkpoint(tiny_encoder, tmp_path):
    return Path(save_model(tiny_encoder(), tmp_path / "checkpoint"))


@pytest.fixture
def base(mlm_folder, tmp_path, ran):
    folder = tmp_path / "base"
    shutil.copytree(mlm_folder, folder)
    plant_model(folder, ran)
    return folder


@pytest.mark.parametrize("place", ["model", "query tokenizer", "table", "router"])
def test_a_checkpoint_runs_none_of_its_code(checkpoint, ran, tmp_path, place):
    PLANTED[place](checkpoint, ran)
    uses = [
        lambda: SparseEncoder.from_pretrained(checkpoint, device="cpu"),
        lambda: load_teacher(f"sparse:{checkpoint}", device="cpu"),
        lambda: export(checkpoint, tmp_path / "exported"),
    ]
    for use in uses:
        with pytest.raises(InputError, match="--trust-remote-code") as caught:
            use()
        assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)
    if place in ("model", "query tokenizer"):  # queries are read from files
        assert QueryEncoder.from_pretrained(checkpoint).encode_query("cat").nnz == 1
    else:
        with pytest.raises(InputError):
            QueryEncoder.from_pretrained(checkpoint)
    assert not ran.exists()


def test_the_tokenizer_of_a_model_that_transformers_knows_is_its_own(checkpoint, ran, tiny_encoder):
    PLANTED["tokenizer"](checkpoint, ran)
    assert_same_model(SparseEncoder.from_pretrained(checkpoint, device="cpu"), tiny_encoder())
    assert QueryEncoder.from_pretrained(checkpoint).encode_query("cat").nnz == 1
    assert not ran.exists()


@pytest.mark.parametrize("place", PLANTED)
def test_it_runs_where_that_is_allowed(checkpoint, ran, place, tiny_encoder):
    PLANTED[place](checkpoint, ran)
    model = SparseEncoder.from_pretrained(checkpoint, device="cpu", trust_remote_code=True)
    assert ran.exists()
    np.testing.assert_allclose(
        dense(model.encode_document(DOCUMENTS)), dense(tiny_encoder().encode_document(DOCUMENTS)), atol=1e-6
    )


def test_a_base_model_too(base, ran, tmp_path, tiny_encoder):
    settings = {"base_model": str(base), "idf": "binary"}
    recipe = Recipe(
        model=settings,
        data={"train": ["none.jsonl"]},
        loss={"document_regularizer_weight": 0.1},
        training={"max_steps": 1, "report_to": "none"},
        output=str(tmp_path / "run"),
    )
    uses = [
        lambda: tiny_encoder(str(base)),
        lambda: build_model(recipe),
        lambda: dry_run(recipe),
        lambda: train_mlm(base, DOCUMENTS, tmp_path / "mlm", steps=0),
        lambda: SparseEncoder.from_pretrained(base, device="cpu", inference_free=False),
    ]
    for use in uses:
        with pytest.raises(ForeignCodeError, match="brings code of its own, which is not run: read it"):
            use()
    assert not ran.exists()

    trusted = dataclasses.replace(recipe, model={**settings, "trust_remote_code": True})
    assert dry_run(trusted).trainable_parameters
    built = build_model(trusted)
    assert ran.exists() and type(built.transformers_model).__name__ == "PlantedModel"
    for options in ({"trust_remote_code": True}, {"hub_options": HubOptions(trust_remote_code=True)}):
        assert type(tiny_encoder(str(base), **options).transformers_model).__name__ == "PlantedModel"


def test_what_was_trained_from_it_comes_back(base, ran, tmp_path, tiny_encoder):
    model = tiny_encoder(str(base), trust_remote_code=True)
    folder = save_model(model, tmp_path / "model")
    again = SparseEncoder.from_pretrained(folder, device="cpu", trust_remote_code=True)
    assert np.array_equal(dense(again.encode_document(DOCUMENTS)), dense(model.encode_document(DOCUMENTS)))
    assert again.fingerprint() == model.fingerprint()


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.mark.parametrize(
    "command",
    [
        "evaluate",
        "index",
        "search",
        "encode",
        "mine",
        "teach",
        "train",
        "export",
        "idf",
        "quickstart",
        "small-data",
    ],
)
def test_every_command_that_loads_a_model_can_allow_it(command):
    assert "--trust-" in run(command, "--help").stdout  # cut at 80 columns


def test_the_commands_refuse_and_obey(checkpoint, base, ran, tmp_path):
    corpus, rows = tmp_path / "corpus.jsonl", tmp_path / "rows.jsonl"
    corpus.write_text('{"id": "a", "text": "the cat"}\n{"id": "b", "text": "a dog"}\n')
    one = '{"query": "cat", "positive": "the cat", "negative": "a dog"}\n'
    rows.write_text(one * 4 + one.replace('"cat"', '"dog"').replace("the cat", "the red cat"))
    plant_model(checkpoint / DOCUMENT, ran, checkpoint)
    shutil.copytree(base, tmp_path / "words")
    (tmp_path / "words" / "config.json").unlink()
    plant_tokenizer(tmp_path / "words", ran)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        json.dumps(
            {
                "model": {"base_model": str(base), "idf": "binary"},
                "data": {"train": str(rows)},
                "loss": {"document_regularizer_weight": 0.1, "ranking": "kl"},
                "teachers": {"models": [f"sparse:{checkpoint}"]},
                "training": {
                    "max_steps": 1,
                    "per_device_train_batch_size": 4,
                    "report_to": "none",
                    "save_strategy": "no",
                },
                "output": str(tmp_path / "run"),
            }
        )
    )
    commands = [
        ("index", checkpoint, corpus, "--to", tmp_path / "index"),
        ("search", corpus, "cat", "--model", checkpoint),
        ("encode", checkpoint, corpus, "--to", tmp_path / "encoded"),
        ("mine", checkpoint, rows, "--output", tmp_path / "mined", "--number", "1"),
        ("teach", rows, "--teacher", f"sparse:{checkpoint}", "--output", tmp_path / "taught"),
        ("export", checkpoint, "--output", tmp_path / "exported"),
        ("idf", corpus, "--tokenizer", tmp_path / "words", "--output", tmp_path / "idf.json"),
        ("train", recipe),
    ]
    for command in commands:
        result = run(*command)
        assert (result.exit_code, ran.exists()) == (2, False), command
        assert "--trust-remote-code" in result.stderr and result.stderr.count("\n") == 1, result.stderr
    for command in commands:
        result = run(*command, "--trust-remote-code")
        assert result.exit_code == 0, result.output
        assert ran.exists()
