"""What mteb wants to know of a model, and its results repository, which is a local one here."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest
from drawn_tasks import COLLECTION, draw_collection, draw_task, register, task_class
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.errors import InputError
from st_l0.evaluation.leaderboard import enter, measure, submit_results
from st_l0.evaluation.model_meta import check_complete, describe, digest_of, read_stated
from tiny_models import save_model

mteb = pytest.importorskip("mteb")

COMMIT, LATER = "a" * 40, "b" * 40
CARD = """---
license: apache-2.0
language: [en, de]
base_model: org/base
datasets: [someone/msmarco, org/own-pairs]
---
# tiny
"""
STATED = ("--meta", "release_date=2026-11-29", "--meta", "public_training_code=none")


@pytest.fixture
def folder(tiny_encoder, tmp_path):
    """Folder of a model with a card."""
    folder = tmp_path / "model"
    save_model(tiny_encoder(), folder)
    (folder / "README.md").write_text(CARD)
    return folder


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Put a folder where a download of it would lie."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))

    def put(folder, commit=COMMIT):
        place = tmp_path / "hub/models--org--tiny"
        shutil.copytree(folder, place / "snapshots" / commit)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs/main").write_text(commit)
        return "org/tiny"

    return put


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A results repository that git takes in place of mteb's."""
    place = tmp_path / "theirs"
    (place / "results").mkdir(parents=True)
    (place / "results/README.md").write_text("results\n")
    for key, value in {"user.name": "someone", "user.email": "someone@example.org"}.items():
        monkeypatch.setenv(f"GIT_AUTHOR_{key.split('.')[1].upper()}", value)
        monkeypatch.setenv(f"GIT_COMMITTER_{key.split('.')[1].upper()}", value)
    for command in (("init", "-q", "-b", "main"), ("add", "."), ("commit", "-q", "-m", "first")):
        subprocess.run(["git", *command], cwd=place, check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{place}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/embeddings-benchmark/results")
    return place


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classes = (task_class(name="DrawnOne"), task_class(draw_collection(seed=1), name="DrawnTwo"))
    register(monkeypatch, "Toy", *classes)
    args = ("--benchmark", "Toy", "--no-bm25", "--results", "kept")
    return lambda model, *more: CliRunner().invoke(
        cli.app, [str(arg) for arg in ("evaluate", model, *args, *more)]
    )


def test_from_a_folder_to_the_results_repository(run, folder, publish, repository, tmp_path, caplog):
    """Measured before publishing, relabelled after it, measured by mteb's loader, committed."""
    first = run(folder, "--name", "org/tiny")
    assert first.exit_code == 0, first.stderr
    (digest,) = (path.name for path in tmp_path.glob("kept/results/org__tiny/*"))
    publish(folder)
    second = run("org/tiny", "--submit", *STATED)
    assert second.exit_code == 2
    assert "2 results measured before it was published, with the same digest, are now filed" in caplog.text
    assert second.stderr.splitlines()[-1] == (
        "error: DrawnOne, DrawnTwo: not measured by mteb's own loader, as the results repository wants it; "
        "add --reference, which measures these again"
    )
    assert [path.name for path in tmp_path.glob("kept/results/org__tiny/*")] == [COMMIT] != [digest]

    third = run("org/tiny", "--submit", "--reference", "--json", *STATED)
    assert third.exit_code == 0, third.stderr
    assert {one["measured_by"] for one in json.loads(third.stdout)["collections"].values()} == {"mteb"}
    assert "2 results committed on the branch mteb-results-" in third.stderr
    clone = tmp_path / "kept/remote"
    shown = subprocess.run(
        ["git", "show", "--name-only", "--format=%s"], cwd=clone, check=True, capture_output=True, text=True
    ).stdout.split("\n")
    assert shown[0] == "Add MTEB evaluation results for org/tiny"
    place = f"results/org__tiny/{COMMIT}"
    assert sorted(filter(None, shown[1:])) == [
        f"{place}/DrawnOne.json", f"{place}/DrawnTwo.json", f"{place}/model_meta.json",
        f"{place}/run_settings.jsonl",
    ]  # fmt: skip
    meta = json.loads((clone / place / "model_meta.json").read_text())
    expected = {
        "name": "org/tiny", "revision": COMMIT, "license": "apache-2.0", "release_date": "2026-11-29",
        "languages": ["deu-Latn", "eng-Latn"], "adapted_from": "org/base", "public_training_code": None,
        "reference": "https://huggingface.co/org/tiny", "open_weights": True, "model_type": ["sparse"],
        "loader": "SparseEncoderWrapper",
    }  # fmt: skip
    assert {key: meta[key] for key in expected} == expected
    assert sorted(meta["training_datasets"]) == ["MSMARCO", "own-pairs"]


def test_what_the_repository_has_is_not_submitted_again(run, folder, publish, repository, tmp_path):
    publish(folder)
    assert run("org/tiny", "--submit", "--reference", *STATED).exit_code == 0
    clone = tmp_path / "kept/remote"
    subprocess.run(["git", "push", "-q", "origin", "HEAD:merged"], cwd=clone, check=True)
    subprocess.run(["git", "merge", "-q", "merged"], cwd=repository, check=True)
    again = run("org/tiny", "--submit", "--reference", *STATED)
    assert again.exit_code == 0, again.stderr
    assert "the results repository has all of these results: nothing to submit" in again.stderr


def test_a_changed_model_gets_nothing_of_the_former(folder, publish, tiny_encoder, tmp_path):
    task = draw_task(name="DrawnOne")
    options = {"results": tmp_path / "kept"}
    before = enter(folder, name="org/tiny", **options)
    list(measure(before, [task], bm25=False))
    save_model(tiny_encoder(activation=2), tmp_path / "other")
    publish(tmp_path / "other")
    entry = enter("org/tiny", **options)
    assert (entry.commit, entry.meta.revision) == (COMMIT, COMMIT)
    assert entry.shelf.result(task, entry.meta) is None
    publish(folder, LATER)
    later = enter("org/tiny", **options)
    assert later.commit == LATER
    assert later.shelf.result(task, later.meta) is not None
    assert later.shelf.parts("DrawnOne", later.meta)["test/default"].queries == 20
    assert enter("org/tiny", revision=COMMIT, **options).commit == COMMIT


def test_a_model_that_is_not_fully_described_is_not_submitted(run, folder, publish):
    (folder / "README.md").write_text("# no head\n")
    publish(folder)
    result = run("org/tiny", "--submit", "--reference")
    assert (result.exit_code, result.stderr) == (
        2,
        "error: org/tiny: a submission needs license, languages, release_date, training_datasets, "
        "public_training_code, public_training_data, which neither the model's card nor --meta states; add "
        "--meta license=… (none where there is none)\n",
    )
    assert run("org/tiny", "--name", "org/other").stderr == (
        "error: org/tiny: a model of the Hub is filed under its id; leave --name out\n"
    )


def test_a_repository_that_cannot_be_reached(folder, publish, tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{tmp_path}/none.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/embeddings-benchmark/results")
    publish(folder)
    entry = enter("org/tiny", results=tmp_path / "kept")
    task = draw_task(COLLECTION, name="DrawnOne")
    list(measure(entry, [task], bm25=False, reference=True))
    with pytest.raises(InputError, match="the results repository cannot be used"):
        submit_results(entry, [task])


def test_a_complete_description(tiny_encoder, tmp_path):
    model = tiny_encoder()
    (tmp_path / "README.md").write_text(CARD)
    stated = read_stated(
        ["release_date=2026-11-29", "public_training_code=https://example.org/code", "contacts=one,two"]
    )
    meta = describe(model, "org/tiny", card=tmp_path / "README.md", stated=stated)
    check_complete(meta, stated)
    assert meta.revision == digest_of(model)
    embeddings = model[0].sub_modules["document"][0].auto_model.get_input_embeddings()
    assert meta.n_embedding_parameters == embeddings.weight.numel()
    assert meta.n_parameters > meta.n_embedding_parameters
    assert meta.contacts == ["one", "two"]
    assert meta.public_training_data is True
    assert meta.training_datasets == {"MSMARCO", "own-pairs"}
    with pytest.raises(InputError, match="mteb refuses release_date 'soon'"):
        describe(model, "org/tiny", stated={"release_date": "soon"})
    with pytest.raises(InputError, match="a submission needs license, languages"):
        check_complete(describe(model, "org/tiny"), {})
    none = read_stated(["training_datasets=none", "adapted_from=none"])
    assert none == {"training_datasets": [], "adapted_from": None}
    assert describe(model, "org/tiny", stated=none).training_datasets == set()
    (tmp_path / "README.md").write_text("---\nlicense: [\n---\n")
    with pytest.raises(InputError, match=r"README\.md: its head is no YAML"):
        describe(model, "org/tiny", card=tmp_path / "README.md")
