"""Words beside vectors: what a search adds up, against bm25s and against numbers worked out by hand."""

import math
import pickle

import bm25s
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from index_model import VOCABULARY, Model, assert_same, integers

from st_l0.index import BM25, EmbeddedIndex, Hit, open_index
from st_l0.index.embedded import kernel, searching
from st_l0.index.embedded.bm25 import code_lengths
from st_l0.utils.words import Analyzer

# Zipf's first words of a small language; "Ⅻ" is more than a byte, and so are the accents.
LEXICON = ["cats", "cat", "dog", "dogs", "naïve", "Ⅻ", "the", "running", "ran", "año", "x9", "zebra"]


def scores_of_bm25s(documents, queries, bm25):
    """What a fresh bm25s gives every document, a row a query."""
    analyze = Analyzer(bm25.language)
    vocabulary = {}
    rows = [[vocabulary.setdefault(word, len(vocabulary)) for word in row] for row in analyze(documents)]
    scores = np.zeros((len(queries), len(documents)))
    if vocabulary:  # it cannot index documents without words
        engine = bm25s.BM25(method="lucene", k1=bm25.k1, b=bm25.b, backend="numpy")
        engine.index((rows, vocabulary), show_progress=False)
        for row, words in enumerate(analyze(queries)):
            if any(word in vocabulary for word in words):
                scores[row] = engine.get_scores(words)
    return scores


def write_text(generator):
    length = int(generator.choice([0, 1, 4, 40, 400]))
    return " ".join(generator.choice(LEXICON, length, p=np.arange(12, 0, -1) / 78))


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("place", ["memory", "folder"])
@pytest.mark.parametrize("seed", range(3))
def test_statistics_are_those_of_the_live_documents(tmp_path, monkeypatch, place, seed):
    monkeypatch.setattr("st_l0.index.embedded.merging.MAX_SIZE", 5000)
    generator = np.random.default_rng(seed)
    bm25 = BM25(k1=float(generator.uniform(0, 3)), b=float(generator.uniform(0, 1)))
    path = None if place == "memory" else tmp_path / "index"
    index, texts, fresh, segments = EmbeddedIndex(path, bm25=bm25), {}, 0, set()
    for number in range(40):
        step = generator.choice(["add", "add", "update", "delete", "reopen"])
        if step == "delete":
            gone = [id for id in texts if generator.random() < 0.3]
            index.delete(gone)
            texts = {id: text for id, text in texts.items() if id not in gone}
        elif step == "reopen" and place == "memory":
            index = pickle.loads(pickle.dumps(index))
        elif step == "reopen":
            index.save(copy := tmp_path / f"copy-{number}")
            index = EmbeddedIndex(index.path if generator.random() < 0.5 else copy)
        else:
            ids = [f"d{i}" for i in range(fresh, fresh + int(generator.integers(1, 9)))]
            fresh += len(ids)
            ids += [id for id in texts if step == "update" and generator.random() < 0.2]
            new = {id: write_text(generator) for id in ids}
            (index.update if step == "update" else index.add)(ids, np.ones((len(ids), 2)), list(new.values()))
            texts = {id: text for id, text in texts.items() if id not in new} | new
        segments.add(len(index._snapshot.segments))
        queries = [" ".join(generator.choice([*LEXICON, "unheard"], 4)), "the of unheard", "zebra zebra cats"]
        expected = scores_of_bm25s(list(texts.values()), queries, bm25)
        for hits, scores in zip(index.search(None, 1000, texts=queries, bm25=1), expected, strict=True):
            found = hits.as_run()
            assert found.keys() == {id for id, score in zip(texts, scores, strict=True) if score > 0}
            for id, score in zip(texts, scores, strict=True):
                assert abs(found.get(id, 0) - score) <= 1e-5
    assert max(segments) > 2


def test_a_score_worked_out_by_hand():
    index = EmbeddedIndex(bm25=BM25(k1=1.5, b=0.5))
    # 4 documents of 2, 3, 0 and 1 words: the mean is 1.5.
    index.add(list("abcd"), np.eye(4), ["cats purr", "A dog and dogs: running!", "", "birds"])
    (hits,) = index.search(np.array([[0, 10, 0, 1]]), texts=["dog cat dog flown"], bm25=2)
    idf = math.log(1 + 3.5 / 1.5)
    a = idf * 1 / (1 + 1.5 * (0.5 + 0.5 * 2 / 1.5))
    b = 2 * idf * 2 / (2 + 1.5 * (0.5 + 0.5 * 3 / 1.5))  # twice in the query
    assert [hit.id for hit in hits] == ["b", "d", "a"]
    assert hits.scores == pytest.approx([10 + 2 * b, 1, 2 * a], rel=1e-6)
    assert [hits[1]] == [Hit("d", 1.0, "birds")]
    parts = index.explain(np.array([0, 10, 0, 1]), "b", text="dog cat dog flown", bm25=2)
    assert list(parts) == [1, "dog"]
    assert parts[1] == (10.0, 1.0)
    assert parts["dog"] == pytest.approx((2 * 2 * idf, 2 / (2 + 1.5 * (0.5 + 0.5 * 3 / 1.5))))
    assert index.explain(None, "c", text="dog", bm25=1) == {}
    assert index.explain(np.array([0, 10, 0, 1]), "b", text="dog", bm25=0) == {1: (10.0, 1.0)}


@pytest.fixture(scope="module")
def corpus():
    """Documents, texts and queries: vectors of real weights, 3,000 documents in several segments."""
    generator = np.random.default_rng(1)
    shape = (3020, 60)
    weights = sp.csr_matrix(generator.random(shape, dtype=np.float32) * (generator.random(shape) < 0.1))
    lexicon = [f"w{number}" for number in range(300)]
    share = 1 / np.arange(1, 301)
    texts = [
        " ".join(generator.choice(lexicon, int(generator.integers(0, 40)), p=share / share.sum()))
        for _ in range(3020)
    ]
    texts[3000] = ""
    texts[3001] = "unheard"
    index = EmbeddedIndex(bm25="english")
    for start in range(0, 3000, 700):
        stop = min(start + 700, 3000)
        index.add(range(start, stop), weights[start:stop], texts[start:stop])
    index.delete(range(0, 3000, 11))
    return index, weights[3000:], texts[3000:], weights[:3000], texts[:3000]


@pytest.fixture(scope="module")
def dense(corpus):
    """The score of every query with every document, 0 for those deleted, in float64."""
    _, queries, asked, documents, texts = corpus
    live = [row for row in range(3000) if row % 11]
    scores = np.zeros((20, 3000))
    scores[:, live] = scores_of_bm25s([texts[row] for row in live], asked, BM25())
    vectors = queries.toarray().astype(np.float64) @ documents.toarray().astype(np.float64).T
    vectors[:, ::11] = 0
    return vectors, scores


@pytest.mark.parametrize("weight", [1e-3, 0.5, 2, np.float32(30)])
@pytest.mark.parametrize("allowed", ["all", "ids", "mask"])
def test_both_parts_equal_the_dense_sum(corpus, dense, generator, weight, allowed):
    index, queries, asked, _, _ = corpus
    expected = dense[0] + float(weight) * dense[1]
    mask = generator.random(3000) < (1.1 if allowed == "all" else 0.4)
    options = {
        "all": {},
        "ids": {"ids": np.flatnonzero(mask).tolist()},
        "mask": {"mask": mask[index.ids().astype(int)]},
    }[allowed]
    for k in (7, 5000):
        found = index.search(queries, k, texts=asked, bm25=weight, **options)
        for hits, scores in zip(found, np.where(mask, expected, 0), strict=True):
            assert len(hits) == min(k, np.count_nonzero(scores > 1e-9))
            np.testing.assert_allclose(hits.scores, scores[hits.ids], rtol=2e-5)
            np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][: len(hits)], rtol=2e-5)


def test_without_a_weight_nothing_changes(corpus):
    index, queries, asked, documents, _ = corpus
    plain = EmbeddedIndex()
    for start in range(0, 3000, 700):
        plain.add(range(start, min(start + 700, 3000)), documents[start : min(start + 700, 3000)])
    plain.delete(range(0, 3000, 11))
    for options in ({}, {"texts": asked, "bm25": 0}, {"texts": asked}, {"bm25": 0.0}):
        pairs = zip(plain.search(queries, 50), index.search(queries, 50, **options), strict=True)
        for expected, hits in pairs:
            assert hits.ids.tolist() == expected.ids.tolist()
            assert hits.scores.tobytes() == expected.scores.tobytes()


def test_threads_batches_and_what_is_kept_change_nothing(corpus, monkeypatch):
    index, queries, asked, _, _ = corpus

    def search():
        found = index.search(queries, 30, texts=asked, bm25=2)
        return [(hits.ids.tolist(), hits.scores.tobytes()) for hits in found]

    alone = [
        (hits.ids.tolist(), hits.scores.tobytes())
        for row, text in enumerate(asked)
        for hits in index.search(queries[row], 30, texts=[text], bm25=2)
    ]
    assert search() == alone
    statistics = index._snapshot.statistics
    for limit in (0, 300, 10**6):  # nothing is kept, little, all
        monkeypatch.setattr(statistics, "_limit", limit)
        monkeypatch.setattr(statistics, "_room", limit)
        statistics._postings.clear()
        assert search() == search() == alone
        held = sum(len(rows) for rows, _ in statistics._postings.values())
        assert held <= limit
        assert (held > 0) == (limit > 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setattr(searching, "_ROWS", 10)
    monkeypatch.setattr(searching, "_QUERIES", 3)
    assert search() == alone


def test_the_kernel_of_words_without_scipys(corpus, monkeypatch):
    index, queries, asked, _, _ = corpus
    expected = index.search(queries, 30, texts=asked, bm25=2)
    monkeypatch.setattr(kernel, "csc_matvec", None)
    for hits, same in zip(index.search(queries, 30, texts=asked, bm25=2), expected, strict=True):
        np.testing.assert_allclose(hits.scores, same.scores, rtol=1e-6)


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_equal_documents_tie_in_index_order(tmp_path, place):
    index = EmbeddedIndex(None if place == "memory" else tmp_path / "index", bm25="english")
    for id in ("e", "a", "d", "b"):
        index.add([id], np.ones((1, 2)), ["one cat and a dog"])
    index.add(["x"], np.ones((1, 2)), [""])
    for options in ({"queries": None}, {"queries": np.ones(2)}):
        for k in (2, 4):
            (hits,) = index.search(**options, k=k, texts=["dog cat"], bm25=0.7)
            assert hits.ids.tolist() == ["e", "a", "d", "b"][:k]
            assert len(set(hits.scores.tolist())) == 1
    index.update(["e"], np.ones((1, 2)), ["one cat and a dog"])
    assert index.search(None, texts=["cat"], bm25=1)[0].ids.tolist() == ["a", "d", "b", "e"]


def test_queries_without_known_words():
    index = EmbeddedIndex(bm25="english")
    index.add(["a", "b"], np.eye(2), ["cats", ""])
    assert [len(hits) for hits in index.search(None, texts=["", "the of", "unheard", "!?"], bm25=1)] == [
        0
    ] * 4
    assert [hit.id for hit in index.search(np.eye(2)[1], texts=["unheard"], bm25=1)[0]] == ["b"]
    assert index.search(None, texts=[], bm25=1) == []


def test_an_empty_index_and_one_whose_documents_are_gone(tmp_path):
    for path in (None, tmp_path / "index"):
        index = EmbeddedIndex(path, bm25="english")
        assert [len(hits) for hits in index.search(None, texts=["cat", "dog"], bm25=1)] == [0, 0]
        assert [len(hits) for hits in index.search(np.ones((1, 3)), texts=["cat"], bm25=1)] == [0]
        index.add(["a"], np.ones((1, 3)), ["cat"])
        index.delete(["a"])
        assert [len(hits) for hits in index.search(np.ones((1, 3)), texts=["cat"], bm25=1)] == [0]
        index.add(["b", "c"], np.ones((2, 3)), ["", "?"])  # documents, but no word at all
        assert index.search(np.ones((1, 3)), texts=["cat"], bm25=1)[0].ids.tolist() == ["b", "c"]
        index.add(["d"], np.ones((1, 3)), ["cat"])
        assert index.search(None, texts=["cat"], bm25=1)[0].ids.tolist() == ["d"]


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("place", ["memory", "folder"])
def test_counts_beyond_a_byte_are_exact(tmp_path, place, generator):
    path = None if place == "memory" else tmp_path / "index"
    index, model = EmbeddedIndex(path, vocabulary_size=VOCABULARY, bm25=BM25(k1=900, b=0)), Model()
    counts = {"a": 254, "b": 255, "c": 256, "d": 300, "e": 70_000, "f": 1}
    for number, (id, count) in enumerate(counts.items()):
        texts, vectors = ["cat " * count + "dog " * (number % 3) * 200], integers(generator, 1)
        index.add([id], vectors, texts)
        model.put([id], vectors, texts)
    index.delete(["b"])
    model.delete(["b"])
    assert_same(index, model, generator)
    if path is not None:
        index.save(tmp_path / "copy")
        index = EmbeddedIndex(tmp_path / "copy")
        assert_same(index, model, generator)
    parts = {id: index.explain(None, id, text="cat", bm25=1)["cat"][1] for id in model.rows}
    assert parts == pytest.approx({id: counts[id] / (counts[id] + 900) for id in model.rows}, rel=1e-6)


def byte_of_lucene(length):
    """``SmallFloat.byte4ToInt(intToByte4(length))``, as Lucene has it."""

    def encode(number):
        bits = number.bit_length()
        if bits < 4:
            return number
        shift = bits - 4
        return (number >> shift & 7) | (shift + 1) << 3

    def decode(code):
        bits, shift = code & 7, (code >> 3) - 1
        return bits if shift == -1 else (bits | 8) << shift

    free = 255 - encode(2**31 - 1)
    return length if length < free else free + decode(encode(length - free))


def test_lengths_are_coded_as_lucene_codes_them():
    lengths = np.concatenate([np.arange(5000), [2**20 + 3, 2**31 - 1, 70_000]]).astype(np.int32)
    assert code_lengths(lengths).tolist() == list(map(byte_of_lucene, lengths.tolist()))
    # From Lucene's own table of lengths.
    known = {0: 0, 23: 23, 39: 39, 40: 40, 41: 40, 43: 42, 57: 56, 59: 56, 63: 60, 90: 88, 103: 96, 167: 152}
    assert code_lengths(np.array(list(known), np.int32)).tolist() == list(known.values())


def test_scores_with_lucenes_lengths_by_hand():
    index = EmbeddedIndex(bm25=BM25(lengths="lucene"))
    index.add(list("abc"), np.eye(3), ["cat " * 3 + "w " * 40, "cat", ""])
    (hits,) = index.search(None, texts=["cat"], bm25=1)
    idf, mean = math.log(1 + 0.5 / 2.5), 44 / 2  # of the two documents that have words
    expected = {
        "b": idf / (1 + 1.2 * (0.25 + 0.75 * 1 / mean)),
        "a": idf * 3 / (3 + 1.2 * (0.25 + 0.75 * 42 / mean)),  # 43 words, coded as 42
    }
    assert hits.as_run() == pytest.approx(expected, rel=1e-6)
    exact = EmbeddedIndex(bm25="english")
    exact.add(list("abc"), np.eye(3), ["cat " * 3 + "w " * 40, "cat", ""])
    assert exact.search(None, texts=["cat"], bm25=1)[0].as_run() != pytest.approx(expected, rel=1e-3)


def test_any_language(tmp_path):
    texts = ["Die Häuser am Fluß", "भारत की राजधानी", "東京都の天気", ""]
    for language, query, found in (
        ("german", "Haus", ["a"]),
        ("hindi", "भारत", ["b"]),
        ("simple", "東京", ["c"]),
    ):
        index = open_index(tmp_path / language, bm25=language)
        index.add(list("abcd"), np.eye(4), texts)
        index = open_index(tmp_path / language)
        assert index.bm25 == BM25(language)
        assert index.search(None, texts=[query], bm25=1)[0].ids.tolist() == found
