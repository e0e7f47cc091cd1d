from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from st_l0.data import read_collection
from st_l0.errors import InputError
from st_l0.evaluation.bm25 import search_bm25
from st_l0.evaluation.metrics import quality
from st_l0.utils.words import Analyzer

DATA = Path(os.environ["ST_L0_DATA"]) / "eval" if "ST_L0_DATA" in os.environ else None
CORPUS = {"a": "The cats are sleeping", "b": "dogs sleep, dogs bark", "c": "fish", "d": ""}


def _score(frequency, length, documents_with_word):
    """Lucene's BM25 of one word; the lengths are those of CORPUS without stop words: 2, 4, 1, 0."""
    idf = math.log(1 + (4 - documents_with_word + 0.5) / (documents_with_word + 0.5))
    return idf * frequency / (frequency + 1.2 * (0.25 + 0.75 * length / (7 / 4)))


def test_scores_by_hand():
    found = search_bm25(CORPUS, {"q": "Dog sleeps"}, k=2).run["q"]
    assert found == {
        "b": pytest.approx(_score(2, 4, 1) + _score(1, 4, 2), rel=1e-5),
        "a": pytest.approx(_score(1, 2, 2), rel=1e-5),
    }


def test_k_is_capped_and_unmatched_documents_are_not_found():
    found = search_bm25(CORPUS, {"q": "barking"}, k=100).run["q"]
    assert found == {"b": pytest.approx(_score(1, 4, 1), rel=1e-5)}


def test_queries_without_known_words():
    run = search_bm25(
        CORPUS, {"unknown": "zebra", "stop words": "the", "empty": "", "known": "fish"}, k=1
    ).run
    assert list(run) == ["unknown", "stop words", "empty", "known"]
    assert [list(hits.values()) for hits in run.values()] == [
        [],
        [],
        [],
        [pytest.approx(_score(1, 1, 1), rel=1e-5)],
    ]


def test_nothing_to_search():
    assert search_bm25({"a": "", "b": "the"}, {"q": "cats"}).run == {"q": {}}
    assert search_bm25(CORPUS, {}).run == {}


def test_languages_without_spaces():
    corpus = {"a": "北京是中国的首都。", "b": "東京は日本の首都です。", "c": "心脏将血液泵送到全身。"}
    corpus |= {"d": "กรุงเทพเป็นเมืองหลวงของประเทศไทย", "e": "ភ្នំពេញជារដ្ឋធានីនៃប្រទេសកម្ពុជា"}
    run = search_bm25(corpus, {"1": "首都", "2": "心脏", "3": "เมืองหลวง", "4": "រដ្ឋធានី", "5": "鼠标"}).run
    assert {query: set(hits) for query, hits in run.items()} == {
        "1": {"a", "b"}, "2": {"c"}, "3": {"d"}, "4": {"e"}, "5": set(),
    }  # fmt: skip
    # One pair, in one of five documents of 7, 9, 9, … pairs.
    (score,) = run["2"].values()
    lengths = [len(pairs) for pairs in Analyzer()(corpus.values())]
    idf = math.log(1 + (5 - 1 + 0.5) / (1 + 0.5))
    assert score == pytest.approx(idf / (1 + 1.2 * (0.25 + 0.75 * 9 / (sum(lengths) / 5))), rel=1e-5)
    assert lengths[:3] == [7, 9, 9]


def test_a_querys_own_document_is_no_hit():
    corpus = {"q": "cats bark", "3": "cats bark", "4": "dogs bark", "d": "cats"}
    queries = {"q": "barking", "3": "Cats  bark", "4": "cats bark", "x": "cats"}
    run = search_bm25(corpus, queries, 2).run
    assert [len(hits) for hits in run.values()] == [2, 2, 2, 2]
    assert {query: set(hits) for query, hits in run.items() if query != "x"} == {
        "q": {"3", "4"}, "3": {"q", "d"}, "4": {"q", "3"},
    }  # fmt: skip
    assert set(search_bm25(corpus, queries, 1, own=set()).run["3"]) <= {"q", "3"}
    assert "q" in search_bm25(corpus, queries, 3, own=set()).run["q"]


def test_silent_unless_asked_on_a_terminal(capfd, monkeypatch):
    search_bm25(CORPUS, {"q": "cats"})
    search_bm25(CORPUS, {"q": "cats"}, progress=True)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("st_l0.evaluation.bm25.is_terminal", lambda stream: True)
    search_bm25(CORPUS, {"q": "cats"}, progress=True)
    assert capfd.readouterr().err


@pytest.mark.skipif(DATA is None or not DATA.is_dir(), reason="ST_L0_DATA does not name the real collections")
@pytest.mark.parametrize(("name", "ndcg", "recall"), [("med", 0.695, 0.792), ("cranfield", 0.359, 0.731)])
def test_published_baselines(name, ndcg, recall):
    collection = read_collection(DATA / name)
    found = quality(collection.qrels, search_bm25(collection.corpus, collection.queries).run)
    assert round(found["ndcg@10"], 3) == ndcg
    assert round(found["recall@100"], 3) == recall


def test_a_text_that_is_none_is_refused_by_its_id():
    with pytest.raises(InputError, match=r"^document 'b' is None, no string"):
        search_bm25({"a": "cat", "b": None}, {"q": "cat"})
    with pytest.raises(InputError, match=r"^query 'q' is 3 \(int\), no string"):
        search_bm25({"a": "cat"}, {"q": 3})


def test_one_character_tells_documents_apart():
    corpus = {"k": "Vitamin K and clotting", "c": "Vitamin C and scurvy", "3": "Chapter 3", "4": "Chapter 4"}
    run = search_bm25(corpus, {"1": "vitamin K", "2": "the vitamin C", "3": "chapter 4"}, own=set()).run
    assert [next(iter(hits)) for hits in run.values()] == ["k", "c", "4"]
