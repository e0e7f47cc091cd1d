"""Words in an index: what is refused, what the folder keeps, and what is loaded."""

import json
import subprocess
import sys

import numpy as np
import pytest

from st_l0.errors import InputError
from st_l0.index import BM25, EmbeddedIndex, open_index
from st_l0.index.embedded import bm25 as module
from st_l0.index.embedded.checking import check_index
from st_l0.utils.words import Analyzer

EYE = np.eye(2, dtype=np.float32)


@pytest.fixture(params=["memory", "folder"])
def index(request, tmp_path):
    index = EmbeddedIndex(None if request.param == "memory" else tmp_path / "index", bm25="english")
    index.add(["a", "b"], EYE, ["cats", "the dog"])
    return index


def refused(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda index: index.search(EYE, bm25=1), "give their texts, too"),
        (lambda index: index.search(EYE, texts=["cat"], bm25=1), "1 texts were given for 2 query vectors"),
        (lambda index: index.search(EYE, texts=["cat"]), "1 texts were given for 2 query vectors"),
        (lambda index: index.search(EYE, texts="cat", bm25=1), "'cat' is one text where a list of texts"),
        (lambda index: index.search(EYE, texts=["cat", None], bm25=1), "query 1 is None, no string"),
        (lambda index: index.search(EYE, texts=["cat", 3], bm25=1), "query 1 is 3 (int), no string"),
        (lambda index: index.search(None, texts=["cat"]), "None is no vector; give a matrix of numbers, or"),
        (lambda index: index.search(None, bm25=1), "give their texts, too"),
        (lambda index: index.search(EYE, texts=["a", "b"], bm25="auto"), "the index has no weight stored"),
        (lambda index: index.explain(EYE[0], "a", bm25=1), "give their texts, too"),
        (lambda index: index.explain(EYE[0], "z", text="cat", bm25=1), "id 'z' is not in the index"),
        (lambda index: index.explain(EYE[0], "a", text=3, bm25=1), "query 0 is 3 (int), no string"),
        (lambda index: index.add(["c"], EYE[:1]), "the index holds words, so it needs the text of every"),
        (lambda index: index.update(["a"], EYE[:1]), "the index holds words, so it needs the text of every"),
        (lambda index: index.add(["c", "d"], EYE, ["x", None]), "text 1 is None, no string: give one"),
        (lambda index: index.add(["c"], EYE[:1], [float("nan")]), "text 0 is nan, no string"),
        (lambda index: index.add(["c"], EYE[:1], ["\ud800"]), "text 0 holds a lone surrogate"),
        (lambda index: index.add(["c"], EYE[:1], ["x", "y"]), "1 ids were given for 2 texts"),
        (lambda index: EmbeddedIndex(index.path, bm25=4), "bm25 must be a language such as 'english'"),
    ],
)
def test_unusable_input_is_refused_and_changes_nothing(index, call, message):
    refused(lambda: call(index), message)
    assert index.ids().tolist() == ["a", "b"]
    assert index.search(None, texts=["cat dog"], bm25=1)[0].ids.tolist() == ["a", "b"]


@pytest.mark.parametrize(
    "weight", [-1, -1e-9, float("nan"), float("inf"), 1e10, True, None, "2", "AUTO", [1]]
)
def test_other_weights_are_refused(index, weight):
    said = "the weight of BM25 must be a number from 0 to 1e9, not "
    refused(lambda: index.search(EYE, texts=["a", "b"], bm25=weight), said)
    refused(lambda: index.explain(EYE[0], "a", text="a", bm25=weight), said)
    refused(lambda: EmbeddedIndex().search(EYE, bm25=weight), said)
    if weight is not None:
        refused(lambda: setattr(index, "bm25_weight", weight), said)
    assert index.bm25_weight is None


def test_an_index_without_words_refuses_texts_of_queries():
    index = EmbeddedIndex()
    index.add(["a"], EYE[:1], ["cat"])
    said = "the index holds no words: build it with bm25='english'"
    for call in (
        lambda: index.search(EYE[:1], texts=["cat"]),
        lambda: index.search(EYE[:1], texts=["cat"], bm25=1),
        lambda: index.search(None, texts=["cat"], bm25=1),
        lambda: index.search(EYE[:1], bm25=1),
        lambda: index.explain(EYE[0], "a", text="cat"),
        lambda: setattr(index, "bm25_weight", 2.0),
    ):
        refused(call, said)
    assert (index.bm25, index.bm25_weight) == (None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k1": -0.1}, "k1 of BM25 must be a number from 0 to 1000, not -0.1"),
        ({"k1": float("inf")}, "k1 of BM25 must be"),
        ({"k1": "1"}, "k1 of BM25 must be"),
        ({"k1": True}, "k1 of BM25 must be"),
        ({"b": 1.1}, "b of BM25 must be a number from 0 to 1, not 1.1"),
        ({"b": float("nan")}, "b of BM25 must be"),
        ({"lengths": "coded"}, "lengths of BM25 must be 'exact' or 'lucene', not 'coded'"),
        ({"language": 3}, "language of BM25 must be a name"),
    ],
)
def test_settings_out_of_range(options, message):
    refused(lambda: BM25(**options), message)


def test_an_unknown_language_makes_no_index(tmp_path):
    refused(lambda: open_index(tmp_path / "index", bm25="klingon"), "'klingon' is no language that words can")
    assert list(tmp_path.iterdir()) == []


def test_an_index_keeps_its_settings(tmp_path):
    path, settings = tmp_path / "index", BM25("german", k1=0.9, b=np.float32(0.5), lengths="lucene")
    open_index(path, bm25=settings)
    for bm25 in (None, settings, BM25("german", 0.9, 0.5, "lucene")):
        assert open_index(path, bm25=bm25).bm25 == settings
    for bm25 in ("german", "english", BM25("german", 0.9, 0.5)):
        refused(lambda bm25=bm25: open_index(path, bm25=bm25), f"{path}: the index holds words of BM25(")
    open_index(tmp_path / "plain")
    refused(lambda: open_index(tmp_path / "plain", bm25="english"), "the index holds no words, not of BM25(")
    assert open_index(tmp_path / "plain").bm25 is None


def test_the_weight_is_stored(index):
    reader = EmbeddedIndex(index.path) if index.path else index
    index.bm25_weight = np.float32(2.5)
    reader.refresh()
    assert reader.bm25_weight == 2.5
    index.add(["c"], EYE[:1], ["cats"])  # a change keeps it
    reader.refresh()
    assert (reader.bm25_weight, len(reader)) == (2.5, 3)
    found = [list(index.search(EYE, texts=["cat", "dog"], bm25=weight)[0]) for weight in ("auto", 2.5, 1)]
    assert found[0] == found[1] != found[2]
    assert reader.explain(None, "a", text="cat", bm25="auto") == index.explain(
        None, "a", text="cat", bm25=2.5
    )
    index.bm25_weight = None
    assert index.bm25_weight is None


def test_another_writer_may_store_the_weight_meanwhile(tmp_path):
    first = EmbeddedIndex(tmp_path / "index", bm25="english")
    second = EmbeddedIndex(tmp_path / "index")
    second.bm25_weight = 3
    first.add(["a"], EYE[:1], ["cat"])
    assert first.bm25_weight == 3


def test_words_of_another_analyzer(tmp_path, monkeypatch):
    path = tmp_path / "index"
    EmbeddedIndex(path, bm25="english").add(["a", "b"], EYE, ["cats", "dogs"])
    other = Analyzer("english")
    other.fingerprint = "another"
    monkeypatch.setattr(module, "_analyzer", lambda language: other)
    index, said = (
        EmbeddedIndex(path),
        "the index has words of another english analyzer, or version of PyStemmer",
    )
    refused(lambda: index.search(EYE, texts=["cat", "dog"], bm25=1), said)
    refused(lambda: index.search(None, texts=["cat"], bm25=1), said)
    refused(lambda: index.explain(EYE[0], "a", text="cat", bm25=1), said)
    refused(lambda: index.add(["c"], EYE[:1], ["cat"]), said)
    refused(lambda: index.update(["a"], EYE[:1], ["cat"]), said)
    assert index.search(EYE)[0].ids.tolist() == ["a"]  # vectors alone
    assert index.search(EYE, texts=["cat", "dog"], bm25=0)[1].ids.tolist() == ["b"]
    index.delete(["a"])
    index.save(tmp_path / "copy")
    monkeypatch.undo()
    copy = EmbeddedIndex(tmp_path / "copy")
    assert copy.search(None, texts=["cat dog"], bm25=1)[0].ids.tolist() == ["b"]


def test_an_index_replaced_by_one_of_other_words(tmp_path):
    path, other = tmp_path / "index", EmbeddedIndex(bm25="german")
    index = EmbeddedIndex(path, bm25="english")
    other.save(path)
    refused(lambda: index.add(["a"], EYE[:1], ["cat"]), "replaced by one of other words meanwhile")
    index.refresh()
    index.add(["a"], EYE[:1], ["Häuser"])
    assert index.search(None, texts=["Haus"], bm25=1)[0].ids.tolist() == ["a"]


def test_only_an_index_with_words_has_the_second_version(tmp_path):
    plain, words = tmp_path / "plain", tmp_path / "words"
    EmbeddedIndex(plain).add(["a", "b"], EYE, ["A", "B"])
    EmbeddedIndex(words, bm25="english").add(["a", "b"], EYE, ["A", "B"])
    manifest = json.loads((plain / "manifest.json").read_text())
    fields = ["format", "version", "vocabulary_size", "id_kind", "metadata", "segments", "checksum"]
    assert list(manifest) == fields
    assert manifest["version"] == 1
    (entry,) = manifest["segments"]
    assert "words" not in entry
    assert not any("word" in file.name for file in plain.rglob("*"))
    manifest = json.loads((words / "manifest.json").read_text())
    assert manifest["version"] == 2
    assert manifest["words"] == {
        "language": "english",
        "k1": 1.2,
        "b": 0.75,
        "lengths": "exact",
        "analyzer": Analyzer("english").fingerprint,
        "weight": None,
    }
    assert check_index(words) == ([], 2, 1, 0)


@pytest.mark.parametrize(
    "words", [None, {}, {"k1": -1}, {"language": 3}, {"analyzer": None}, {"weight": -1}, {"more": 1}]
)
def test_settings_that_no_index_can_have(tmp_path, words):
    from st_l0.index.embedded.manifests import seal

    path = tmp_path / "index"
    EmbeddedIndex(path, bm25="english")
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["words"] = words and manifest["words"] | words
    (path / "manifest.json").write_bytes(seal(manifest))
    refused(lambda: EmbeddedIndex(path), f"{path / 'manifest.json'} is damaged (unexpected fields)")


def test_what_is_loaded_for_words(tmp_path):
    path = tmp_path / "index"
    EmbeddedIndex(path, bm25="english").add(["a", "b"], EYE, ["cats", "dogs"])
    code = f"""
import sys
from st_l0.index import open_index
index = open_index({str(path)!r})
hits = index.search([[0.0, 1.0]])[0]
assert not {{"bm25s", "Stemmer"}} & set(sys.modules)
print(index.search(None, texts=["cat"], bm25=1)[0].ids.tolist())
assert not {{"torch", "transformers", "jax", "numba"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("['a']\n", "")
