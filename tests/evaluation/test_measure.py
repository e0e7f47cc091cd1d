from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp

from protocol_index import ProtocolIndex
from st_l0.data import Collection
from st_l0.errors import InputError
from st_l0.evaluation import measure
from st_l0.evaluation.measure import evaluate
from st_l0.index import EmbeddedIndex

WORDS = ["cat", "dog", "fish", "sleep", "bark", "swim"]
PETS = Collection(
    name="pets",
    corpus={"d1": "cat sleep sleep", "d2": "dog bark", "d3": "fish swim", "d4": "dog sleep", "d5": ""},
    queries={"q1": "cat sleep", "q2": "dog", "q3": "zebra"},
    qrels={"q1": {"d1": 2, "d4": 1}, "q2": {"d4": 1}, "q3": {"d3": 1}},
)


class BagOfWords:
    """A model that counts words in documents, and marks them in queries."""

    def __init__(self):
        self.calls = []

    def encode_document(self, inputs, *, batch_size, show_progress_bar, convert_to_scipy):
        self.calls.append(("document", len(inputs), batch_size, show_progress_bar, convert_to_scipy))
        return sp.csr_matrix(
            [[text.split().count(word) for word in WORDS] for text in inputs], dtype=np.float32
        )

    def encode_query(self, inputs, *, convert_to_scipy):
        self.calls.append(("query", len(inputs), convert_to_scipy))
        return sp.csr_matrix([[word in text.split() for word in WORDS] for text in inputs], dtype=np.float32)


def _vectors():
    return BagOfWords().encode_document(
        list(PETS.corpus.values()), batch_size=1, show_progress_bar=False, convert_to_scipy=True
    )


def _index(ids=None, vectors=None):
    index = EmbeddedIndex()
    index.add(list(PETS.corpus) if ids is None else ids, _vectors() if vectors is None else vectors)
    return index


def _run(**options):
    return evaluate(BagOfWords(), PETS, bm25=False, progress=False, **options)


# q1 scores d1 3, d4 1: perfect. q2 scores d2 1, d4 1: a tie, which the larger id wins, so d4 comes first.
# q3 finds nothing.
QUALITY = {"ndcg@10": 2 / 3, "mrr@10": 2 / 3, "recall@100": 2 / 3}
NOTHING = {"without_hits": 1 / 3}
# p_q is 1/3 for cat, sleep and dog; p_d is 1/5, 2/5 and 2/5.
COSTS = {"flops": 1 / 3, "query_active_dims": 1, "document_active_dims": 8 / 5, "document_active_dims_p95": 2}


def test_numbers_by_hand():
    report = _run()
    assert {key: report[key] for key in ("collection", "documents", "queries")} == {
        "collection": "pets", "documents": 5, "queries": 3,
    }  # fmt: skip
    measured = report["model"]
    for key, expected in (QUALITY | NOTHING | COSTS).items():
        assert measured[key] == pytest.approx(expected), key
    times = set(measured) - set(QUALITY | NOTHING | COSTS)
    assert times == {
        "encode_documents_seconds", "documents_per_second", "index_seconds", "encode_query_ms",
        "search_ms_per_query",
    }  # fmt: skip
    assert all(type(value) is float for value in measured.values())
    assert all(measured[key] > 0 for key in times)
    assert "bm25" not in report


def test_how_the_model_is_called():
    model = BagOfWords()
    evaluate(model, PETS, bm25=False, progress=False, batch_size=7)
    assert model.calls == [("document", 5, 7, False, True), ("query", 1, True), ("query", 3, True)]


def test_bm25_beside_the_model():
    report = evaluate(BagOfWords(), PETS, progress=False)
    assert report["bm25_variant"] == "Lucene's, k1 1.2, b 0.75, english stop words, english stemmer"
    assert set(report["bm25"]) == {
        *QUALITY, *NOTHING, "word_flops", "index_seconds", "search_ms_per_query",
    }  # fmt: skip
    # "cat" is in 1 of 5 documents, "sleep" and "dog" in 2; each is in 1 of 3 queries.
    assert report["bm25"]["word_flops"] == pytest.approx((1 + 2 + 2) / 15)
    # Neither finds the document that shares no word with its query.
    assert report["bm25"]["recall@100"] == pytest.approx(2 / 3)
    assert report["model"]["recall@100"] == pytest.approx(2 / 3)


def test_what_the_numbers_are_the_means_of():
    results = {}
    report = _run(results=results)
    assert list(results) == ["model"]
    found = results["model"]
    assert found.run == {"q1": {"d1": 3.0, "d4": 1.0}, "q2": {"d2": 1.0, "d4": 1.0}, "q3": {}}
    perfect, nothing = dict.fromkeys(QUALITY, 1.0), dict.fromkeys(QUALITY, 0.0)
    assert found.per_query == {"q1": perfect, "q2": perfect, "q3": nothing}
    for key in QUALITY:
        mean = sum(values[key] for values in found.per_query.values()) / 3
        assert report["model"][key] == pytest.approx(mean, abs=1e-15)


def test_what_bm25_found_at_another_depth():
    results = {}
    report = evaluate(BagOfWords(), PETS, k=20, progress=False, results=results, bm25_weight=1)
    assert list(results) == ["bm25", "model", "model_bm25"]
    for system, found in results.items():
        # Neither finds d3 for q3; d2 and d4 are as long, and d4 wins the tie by its id.
        assert {query: set(hits) for query, hits in found.run.items()} == {
            "q1": {"d1", "d4"}, "q2": {"d2", "d4"}, "q3": set(),
        }  # fmt: skip
        for key in ("ndcg@10", "mrr@10", "recall@20"):
            assert [values[key] for values in found.per_query.values()] == [1, 1, 0]
            assert report[system][key] == pytest.approx(2 / 3)


def _bm25(word, document):
    """BM25 by its formula, for texts that the stemmer leaves as they are."""
    texts = [text.split() for text in PETS.corpus.values()]
    frequency = sum(word in text for text in texts)
    idf = math.log(1 + (5 - frequency + 0.5) / (frequency + 0.5))
    text, mean = PETS.corpus[document].split(), sum(map(len, texts)) / 5
    count = text.count(word)
    return idf * count / (count + 1.2 * (0.25 + 0.75 * len(text) / mean))


def test_the_sum_of_both():
    results = {}
    report = evaluate(BagOfWords(), PETS, progress=False, results=results, bm25_weight=2)
    found = results["model_bm25"].run
    assert found["q1"] == pytest.approx(
        {
            "d1": 3 + 2 * (_bm25("cat", "d1") + _bm25("sleep", "d1")),
            "d4": 1 + 2 * _bm25("sleep", "d4"),
        }
    )
    assert list(found["q1"]) == ["d1", "d4"] and found["q3"] == {}
    assert set(found["q2"]) == {"d2", "d4"}
    measured = report["model_bm25"]
    assert measured["bm25_weight"] == 2
    assert measured["p_value"] == 1  # no query has another nDCG@10
    assert (measured["flops"], measured["word_flops"]) == pytest.approx((1 / 3, 1 / 3))
    assert results["model"].run["q1"] == {"d1": 3.0, "d4": 1.0}  # as without words


@pytest.mark.parametrize("weight", [-1, math.nan, "much", True])
def test_the_weight_of_the_sum_has_to_be_one(weight):
    with pytest.raises(InputError, match="the weight of BM25"):
        evaluate(BagOfWords(), PETS, progress=False, bm25_weight=weight)


def test_without_labels_the_weight_comes_from_the_model_or_the_documents(caplog):
    apart = replace(PETS, corpus={"d1": "cat", "d4": "dog", "d3": "fish"})
    report = evaluate(BagOfWords(), apart, progress=False)
    assert "model_bm25" not in report  # no document's first sentence finds two others
    assert any("are not added up" in record.getMessage() for record in caplog.records)
    assert evaluate(BagOfWords(), PETS, progress=False)["model_bm25"]["bm25_weight"] > 0
    model = BagOfWords()
    model.bm25_weight = 0.5
    assert evaluate(model, PETS, progress=False)["model_bm25"]["bm25_weight"] == 0.5
    index = EmbeddedIndex(bm25="english")
    index.add(list(PETS.corpus), _vectors(), list(PETS.corpus.values()))
    index.bm25_weight = 3
    assert evaluate(model, PETS, index=index, progress=False)["model_bm25"]["bm25_weight"] == 3
    assert "model_bm25" not in evaluate(model, PETS, index=_index(), progress=False)  # has no words


def test_another_engine():
    made = []
    results = {}
    report = _run(make_index=lambda: made.append(ProtocolIndex()) or made[-1], results=results)
    (index,) = made
    assert len(index) == 5 and index.calls == ["add", "search"]
    assert {key: report["model"][key] for key in QUALITY} == pytest.approx(QUALITY)
    assert results["model"].run["q1"] == {"d1": 3.0, "d4": 1.0}
    again = _run(index=index, make_index=lambda: pytest.fail("made another"))
    assert {key: again["model"][key] for key in QUALITY} == pytest.approx(QUALITY)


def test_given_vectors_are_not_encoded_again():
    model = BagOfWords()
    report = evaluate(model, PETS, document_vectors=_vectors().toarray(), bm25=False, progress=False)
    assert [call[0] for call in model.calls] == ["query", "query"]
    for key, expected in (QUALITY | NOTHING | COSTS).items():
        assert report["model"][key] == pytest.approx(expected), key
    assert not {"encode_documents_seconds", "documents_per_second"} & set(report["model"])


def test_given_index_is_searched():
    model = BagOfWords()
    measured = evaluate(model, PETS, index=_index(), bm25=False, progress=False)["model"]
    assert [call[0] for call in model.calls] == ["query", "query"]
    expected = QUALITY | {key: value for key, value in COSTS.items() if not key.endswith("p95")}
    assert {key: measured[key] for key in expected} == pytest.approx(expected)
    assert set(measured) - set(expected | NOTHING) == {"encode_query_ms", "search_ms_per_query"}


def test_an_index_that_does_not_count_its_tokens():
    index = ProtocolIndex()
    index.add(list(PETS.corpus), _vectors())
    measured = evaluate(BagOfWords(), PETS, index=index, bm25=False, progress=False)["model"]
    assert measured["ndcg@10"] == pytest.approx(QUALITY["ndcg@10"])
    assert "flops" not in measured and "document_active_dims" not in measured


def test_given_index_and_vectors():
    # The index finds fish for every query; the vectors only tell the costs.
    vectors = sp.csr_matrix(np.ones((5, 6)) * [[0], [0], [1], [0], [0]])
    measured = _run(index=_index(vectors=vectors), document_vectors=_vectors())["model"]
    assert {key: measured[key] for key in COSTS} == pytest.approx(COSTS)
    assert measured["ndcg@10"] == 0
    assert measured["recall@100"] == 0


def test_integer_ids_in_the_index():
    numbers = Collection("n", {"1": "cat", "2": "dog"}, {"q": "dog"}, {"q": {"2": 1}})
    index = _index([1, 2], _vectors()[[0, 1]])
    report = evaluate(BagOfWords(), numbers, index=index, bm25=False, progress=False)
    assert report["model"]["mrr@10"] == 1


def test_more_queries_than_one_batch():
    queries = {f"q{number}": "cat" if number % 2 else "dog" for number in range(601)}
    qrels = {query: {"d1" if text == "cat" else "d4": 1} for query, text in queries.items()}
    many = Collection("many", PETS.corpus, queries, qrels)
    assert evaluate(BagOfWords(), many, bm25=False, progress=False)["model"]["mrr@10"] == 1


def test_k_is_the_depth_of_recall():
    corpus = {f"d{number:03}": "cat" for number in range(40)}
    cats = Collection("cats", corpus, {"q": "cat"}, {"q": dict.fromkeys(corpus, 1)})
    assert evaluate(BagOfWords(), cats, k=10, bm25=False, progress=False)["model"]["recall@10"] == 0.25
    with pytest.raises(InputError, match="k is 9"):
        evaluate(BagOfWords(), cats, k=9, bm25=False, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"index": _index(["d1"], _vectors()[:1])}, "the index holds 1 documents, collection pets 5"),
        ({"index": _index(["x1", "x2", "x3", "x4", "x5"])}, "the index holds document 'x1', which is not in"),
        ({"document_vectors": _vectors()[:4]}, "4 document vectors for the 5 documents"),
    ],
)
def test_what_belongs_to_another_collection_is_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        _run(**options)
    assert "\n" not in str(caught.value)


def test_empty_collection_is_refused():
    with pytest.raises(InputError, match="collection none: no documents or no judged queries"):
        evaluate(BagOfWords(), Collection("none", PETS.corpus, {}, {}), bm25=False)


def test_progress_is_shown_only_when_asked(capfd, monkeypatch):
    _run()
    assert capfd.readouterr() == ("", "")
    shown = []
    show = measure.show_progress
    monkeypatch.setattr(
        measure,
        "show_progress",
        lambda *args, **options: (shown.append((args[0], options["shown"])), show(*args, **options))[1],
    )
    _run()
    evaluate(BagOfWords(), PETS, bm25=False)
    assert shown == [("searching", False), ("searching", True)]


def test_interrupt_is_not_swallowed():
    class Interrupted(BagOfWords):
        def encode_query(self, inputs, *, convert_to_scipy):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupted(), PETS, bm25=False, progress=False)


# Four queries are documents, of which the last but one is judged as relevant to itself.
OWN = Collection(
    "own",
    corpus={"a": "cat sleep", "b": "cat", "7": "dog bark", "8": "fish", "c": "bark"},
    queries={"a": "cat sleep", "7": "Dog  bark", "c": "bark", "8": "dog"},
    qrels={"a": {"b": 1}, "7": {"c": 1}, "c": {"c": 1}, "8": {"8": 0, "7": 1}},
)


def test_a_querys_own_document_is_no_hit():
    results = {}
    evaluate(BagOfWords(), OWN, bm25=True, progress=False, results=results)
    for system in ("model", "bm25"):
        found = {query: list(hits) for query, hits in results[system].run.items()}
        assert found == {"a": ["b"], "7": ["c"], "c": found["c"], "8": ["7"]}
        assert set(found["c"]) == {"7", "c"}
        assert [results[system].per_query[query]["ndcg@10"] for query in ("a", "7", "8")] == [1, 1, 1]


def test_k_documents_remain_without_the_querys_own():
    corpus = {f"d{number:02}": "cat" for number in range(30)} | {"q": "cat cat cat"}
    cats = Collection("cats", corpus, {"q": "cat"}, {"q": {"d00": 1}})
    results = {}
    evaluate(BagOfWords(), cats, k=12, progress=False, results=results)
    assert [len(results[system].run["q"]) for system in ("model", "bm25")] == [12, 12]


def test_a_system_that_finds_nothing_is_named(caplog):
    unknown = Collection("odd", PETS.corpus, {"q1": "cat", "q2": "zebra", "q3": "☂"}, PETS.qrels)
    report = evaluate(BagOfWords(), unknown, progress=False)
    assert report["bm25"]["without_hits"] == report["model"]["without_hits"] == pytest.approx(2 / 3)
    warnings = [record for record in caplog.records if record.name.startswith("st_l0")]
    assert [record.getMessage().split(";")[0] for record in warnings] == [
        f"collection odd: {name} found nothing for 2 of 3 queries" for name in ("BM25", "the model")
    ]
    caplog.clear()
    evaluate(BagOfWords(), PETS, progress=False)
    assert "found nothing" not in caplog.text


@pytest.mark.parametrize("part", ["corpus", "queries"])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is None, no string"),
        (float("nan"), "is nan, no string"),
        ("a\ud800", "holds a lone surrogate"),
    ],
)
def test_a_text_that_is_none_is_refused_by_its_id(part, text, message):
    name = "d2" if part == "corpus" else "q2"
    collection = replace(PETS, **{part: getattr(PETS, part) | {name: text}})
    noun = "document" if part == "corpus" else "query"
    model = BagOfWords()
    with pytest.raises(InputError, match=f"^collection pets: {noun} '{name}' {message}"):
        evaluate(model, collection, progress=False)
    assert model.calls == []
