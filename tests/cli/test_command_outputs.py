"""Every command looks at its output first: before models, before data, and nothing is lost."""

import json
import os

import pytest
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.training.recipe import load_recipe


class Loaded(Exception):
    """The work has begun."""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A folder with a corpus, a collection and a recipe; to load anything raises `Loaded`."""

    def load(*args, **kwargs):
        raise Loaded

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(SparseEncoder, "from_pretrained", load)
    for place in (
        "transformers.AutoTokenizer.from_pretrained",
        "st_l0.teachers.load_teacher",
        "st_l0.data.read_collection",
        "st_l0.mining.read_positives",
        "st_l0.training.train_model.read_data",
    ):
        monkeypatch.setattr(place, load)
    (tmp_path / "c.jsonl").write_text('{"_id": "a", "text": "heart"}\n')
    (tmp_path / "t.jsonl").write_text('{"query": "heart", "positive": "heart one"}\n')
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "train.jsonl").write_text("of years")
    (tmp_path / "beir").mkdir()
    recipe = {
        "model": {"base_model": "owner/base"},
        "data": {"train": ["t.jsonl"]},
        "loss": {"document_regularizer_weight": 0.001},
        "training": {"max_steps": 1},
        "output": "run",
    }
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    return tmp_path


COMMANDS = {
    "train": ["train", "r.yaml", "output=OUT"],
    "export": ["export", "owner/model", "--output", "OUT"],
    "encode": ["encode", "owner/model", "c.jsonl", "--to", "OUT"],
    "encode --format": ["encode", "owner/model", "c.jsonl", "--to", "OUT", "--format", "qdrant"],
    "index": ["index", "owner/model", "c.jsonl", "--to", "OUT"],
    "mine": ["mine", "owner/model", "beir", "--output", "OUT"],
    "teach": ["teach", "t.jsonl", "--teacher", "dense:owner/model", "--output", "OUT"],
    "idf": ["idf", "c.jsonl", "--tokenizer", "owner/model", "--output", "OUT"],
    "evaluate": ["evaluate", "owner/model", "--data", "beir", "--output", "OUT"],
    "quickstart": ["quickstart", "--base-model", "owner/base", "--output", "OUT"],
}
FILES = {"idf", "evaluate"}


def run(command, output):
    arguments = [argument.replace("OUT", str(output)) for argument in COMMANDS[command]]
    return CliRunner().invoke(cli.app, arguments)


def content(folder):
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(result, work, before):
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert content(work) == before
    return line


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("output", ["gs://bucket/out", "s3://bucket/out", "$UNSET_HERE/out", "c.jsonl/out"])
def test_no_place_for_an_output(work, command, output):
    before = content(work)
    line = refused(run(command, output), work, before)
    assert output.removesuffix("/out") in line


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_there_stays(work, command):
    before = content(work)
    if command in FILES:
        for path in ("c.jsonl", "r.yaml", "thesis/train.jsonl", "thesis"):
            refused(run(command, path), work, before)
    elif command in ("train", "quickstart"):
        (work / "thesis" / "model").mkdir()
        (work / "thesis" / "model" / "chapter.tex").touch()
        before = content(work)
        assert "thesis" in refused(run(command, "thesis"), work, before)
    else:
        assert "thesis" in refused(run(command, "thesis"), work, before)


@pytest.mark.parametrize("command", sorted(FILES))
@pytest.mark.skipif(os.name == "nt", reason="needs the devices of a Unix")
def test_no_device_is_replaced(work, command):
    os.mkfifo(work / "pipe")
    (work / "link").symlink_to("/dev/full")
    for path in ("/dev/full", "pipe", "link"):
        assert "is a device or pipe" in refused(run(command, path), work, content(work))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_good_place_is_no_hindrance(work, command, monkeypatch):
    monkeypatch.setenv("HOME", str(work / "home"))
    monkeypatch.setenv("USERPROFILE", str(work / "home"))
    result = run(command, "~/new/out")
    if command == "quickstart":
        assert result.exit_code == 2  # there is no such base model
        assert "owner/base" in result.stderr
    else:
        assert result.exit_code == 1
        assert "Loaded" in result.stderr
    assert not (work / "~").exists()


def test_the_paths_of_a_recipe(work, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("USERPROFILE", "/home/ada")
    monkeypatch.setenv("DATA", "/data")
    loaded = load_recipe(
        work / "r.yaml",
        [
            "output=~/runs/x",
            "data.train=[$DATA/t.jsonl, owner/name]",
            "data.corpus=~/c",
            "data.queries=${DATA}/q",
            "model.base_model=~/base",
            "model.idf=$DATA/idf.json",
            "loss.token_weights=df",
            "loss.ranking=kl",
            "teachers.models=['dense:~/teacher', 'sparse:owner/name']",
            "training.deepspeed=$DATA/ds.json",
        ],
    )
    assert loaded.output == "/home/ada/runs/x"
    assert loaded.data.train == ("/data/t.jsonl", "owner/name")
    assert (loaded.data.corpus, loaded.data.queries) == ("/home/ada/c", "/data/q")
    assert (loaded.model.base_model, loaded.model.idf) == ("/home/ada/base", "/data/idf.json")
    assert loaded.loss.token_weights == "df"
    assert loaded.teachers.models == ("dense:/home/ada/teacher", "sparse:owner/name")
    assert loaded.training["deepspeed"] == "/data/ds.json"


@pytest.mark.parametrize(
    "override",
    [
        "output=gs://b/x",
        "data.train=[s3://b/t.jsonl]",
        "model.idf=$UNSET_HERE/i",
        "training.deepspeed=gs://b",
    ],
)
def test_a_path_in_a_recipe_that_cannot_be(work, override):
    before = content(work)
    result = CliRunner().invoke(cli.app, ["train", "r.yaml", override])
    line = refused(result, work, before)
    assert line.startswith(f"error: override '{override}': {override.partition('=')[0]} cannot be used: ")


def test_prompts_of_teachers_reach_them(work, monkeypatch):
    seen = {}

    def load(spec, *, prompts, **options):
        seen[spec] = prompts
        if len(seen) == 2:
            raise Loaded

    monkeypatch.setattr("st_l0.teachers.load_teacher", load)
    texts = ["dense:owner/a=find: ", "dense:owner/b=a=b"]
    options = [part for text in texts for part in ("--query-prompt", text)]
    options += ["--document-prompt", "dense:owner/b=passage: "]
    command = [
        "teach",
        "t.jsonl",
        "--teacher",
        "dense:owner/a",
        "--teacher",
        "dense:owner/b",
        "--output",
        "o",
    ]
    assert "Loaded" in CliRunner().invoke(cli.app, [*command, *options]).stderr
    assert seen == {
        "dense:owner/a": {"query": "find: "},
        "dense:owner/b": {"query": "a=b", "document": "passage: "},
    }
    before = content(work)
    line = refused(CliRunner().invoke(cli.app, [*command, "--query-prompt", "dense:owner/c=x"]), work, before)
    assert "--query-prompt 'dense:owner/c=x': begins with no --teacher" in line
