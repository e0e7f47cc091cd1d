from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from st_l0.data import read_collection
from st_l0.errors import InputError
from st_l0.evaluation.bm25 import search_bm25
from st_l0.evaluation.metrics import quality

pytest.importorskip("bm25s")
pytest.importorskip("Stemmer")

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


def test_silent_unless_asked(capfd):
    search_bm25(CORPUS, {"q": "cats"})
    assert capfd.readouterr() == ("", "")
    search_bm25(CORPUS, {"q": "cats"}, progress=True)
    assert capfd.readouterr().err


@pytest.mark.skipif(DATA is None or not DATA.is_dir(), reason="ST_L0_DATA does not name the real collections")
@pytest.mark.parametrize(("name", "ndcg", "recall"), [("med", 0.699, 0.790), ("cranfield", 0.360, 0.731)])
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
