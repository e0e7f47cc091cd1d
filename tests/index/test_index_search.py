import doctest

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from index_model import VOCABULARY, Model, assert_same, integers

import st_l0.index.embedded.index
from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, Hit, Hits, Index, open_index


@pytest.fixture
def index():
    index = EmbeddedIndex()
    vectors = np.array([[1, 0, 2], [0, 3, 0], [1, 0, 2], [0, 0, 0]], dtype=np.float32)
    index.add(["a", "b", "c", "empty"], vectors, ["A", "B", None, ""])
    return index


@pytest.mark.usefixtures("small_segments")
@pytest.mark.parametrize("kind", ["str", "int"])
@pytest.mark.parametrize(
    ("place", "bm25"), [("memory", None), ("folder", None), ("memory", "english"), ("folder", "english")]
)
def test_equals_brute_force_through_any_history(tmp_path, generator, kind, place, bm25):
    path = None if place == "memory" else tmp_path / "index"
    index, model = EmbeddedIndex(path, vocabulary_size=VOCABULARY, bm25=bm25), Model()
    reader = None if path is None else EmbeddedIndex(path)
    fresh = iter(range(10_000))
    most_segments = merged = 0
    for step in range(60):
        known = list(model.rows)
        operation = generator.choice(["add", "add", "update", "delete"])
        if operation == "delete" and known:
            count = int(generator.integers(1, max(2, len(known) // 3)))
            ids = [known[i] for i in generator.choice(len(known), count, replace=False)]
            index.delete(ids)
            model.delete(ids)
        else:
            new = [next(fresh) for _ in range(int(generator.integers(1, 12)))]
            ids = [f"né{i}" if kind == "str" else i * 7 - 50 for i in new]
            if operation == "update" and known:
                ids[: len(ids) // 2] = known[: len(ids) // 2]
                ids = list(dict.fromkeys(ids))
            vectors = integers(generator, len(ids), negative=True)
            texts = None if step % 3 == 0 else [f"text {id}" if id != ids[0] else None for id in ids]
            if bm25 is not None:
                words = ["cats", "cat", "dogs", f"{kind}{step}"]
                texts = [" ".join(generator.choice(words, number % 7)) for number in range(len(ids))]
            (index.update if operation == "update" else index.add)(ids, sp.csr_matrix(vectors), texts)
            model.put(ids, vectors, texts)
        assert_same(index, model, generator)
        most_segments = max(most_segments, len(index._snapshot.segments))
        merged += len(index._snapshot.segments) < most_segments
        if reader is not None:
            reader.refresh()
            assert_same(reader, model, generator)
            if step % 10 == 9:
                index = EmbeddedIndex(path)
    assert most_segments > 2
    assert merged
    index.save(tmp_path / "copy")
    copy = EmbeddedIndex(tmp_path / "copy", create=False)
    assert all(live.deleted is None for live in copy._snapshot.segments)
    assert_same(copy, model, generator)
    index.delete(list(model.rows))
    assert (len(index), index.ids().tolist(), len(index._snapshot.segments)) == (0, [], 0)
    assert len(index.search(np.ones(VOCABULARY))[0]) == 0


def test_real_weights_match_a_dense_product(generator):
    shape = (3020, 200)
    weights = sp.csr_matrix(generator.random(shape, dtype=np.float32) * (generator.random(shape) < 0.08))
    documents, queries = weights[:3000], weights[3000:]
    index = EmbeddedIndex()
    for start in range(0, 3000, 700):
        stop = min(start + 700, 3000)
        index.add(range(start, stop), documents[start:stop])
    dense = queries.toarray().astype(np.float64) @ documents.toarray().astype(np.float64).T
    for k in (10, 5000):
        for expected, hits in zip(dense, index.search(queries, k), strict=True):
            assert len(hits) == min(k, np.count_nonzero(expected))
            np.testing.assert_allclose(hits.scores, expected[hits.ids], rtol=1e-5)
            np.testing.assert_allclose(hits.scores, np.sort(expected)[::-1][: len(hits)], rtol=1e-5)


def test_equal_scores_come_in_index_order_and_an_update_counts_as_new(index):
    query = np.array([1.0, 0.0, 1.0])
    assert index.search(query)[0].ids.tolist() == ["a", "c"]
    index.update(["a"], np.array([[1, 0, 2]]))
    assert index.search(query)[0].ids.tolist() == ["c", "a"]
    assert index.search(query, k=1)[0].ids.tolist() == ["c"]
    assert index.ids().tolist() == ["b", "c", "empty", "a"]
    assert index.search(query)[0][1].text is None  # the new version came without a text


def test_only_scores_above_zero_are_hits(index):
    (hits,) = index.search(np.array([2.0, -1.0, -1.0]))  # a and c: 2 - 2 = 0; b: -3
    assert len(hits) == 0
    (hits,) = index.search(np.array([3.0, -1.0, -1.0]))
    assert list(hits) == [Hit("a", 1.0, "A"), Hit("c", 1.0, None)]


def test_empty_queries_have_empty_hits(index):
    first, second = index.search(np.array([[0, 0, 0], [0, 1, 0]]))
    assert list(first) == []
    assert list(second) == [Hit("b", 3.0, "B")]
    assert index.search(sp.csr_matrix((0, 3))) == []
    assert [len(hits) for hits in EmbeddedIndex().search(np.ones((2, 5)))] == [0, 0]


@pytest.mark.parametrize(
    "form", [torch.tensor, sp.csc_matrix, sp.csr_matrix, lambda a: torch.tensor(a).to_sparse()]
)
def test_takes_vectors_of_any_form(form):
    index = EmbeddedIndex()
    index.add(np.array([4, 5]), form(np.array([[1.0, 0.0], [0.0, 2.0]])))
    assert list(index.search(form(np.array([[0.0, 3.0]])))[0]) == [Hit(5, 6.0, None)]


def test_explicit_zeros_are_no_matches():
    index = EmbeddedIndex()
    index.add(["a"], sp.csr_matrix(([0.0, 1.0], ([0, 0], [0, 1])), shape=(1, 3)))
    query = sp.csr_matrix(([5.0, 0.0, 2.0], ([0, 0, 0], [0, 1, 2])), shape=(1, 3))
    assert len(index.search(query)[0]) == 0
    assert index.explain(query, "a") == {}


def test_the_index_does_not_keep_the_callers_arrays():
    vectors = sp.csr_matrix(np.array([[1, 2]], dtype=np.float32))
    index = EmbeddedIndex()
    index.add(["a"], vectors)
    vectors.data[:] = 9
    assert index.search(np.array([1.0, 1.0]))[0].scores.tolist() == [3.0]


@pytest.mark.parametrize("place", ["memory", "folder"])
def test_explain_reads_the_index(tmp_path, place):
    index = EmbeddedIndex(None if place == "memory" else tmp_path / "index")
    index.add(["x"], np.array([[0, 9, 0, 0]]))
    index.add(["a", "b"], np.array([[1, 0, 2, 3], [0, 3, 0, 4]]))
    query = np.array([2.0, 7.0, 5.0, -1.0])
    explained = index.explain(query, "a")
    assert list(explained.items()) == [(2, (5.0, 2.0)), (0, (2.0, 1.0)), (3, (-1.0, 3.0))]
    scores = {hit.id: hit.score for hit in index.search(query)[0]}
    assert scores["a"] == sum(mine * theirs for mine, theirs in explained.values())
    with pytest.raises(InputError, match="'nobody' is not in the index"):
        index.explain(query, "nobody")
    with pytest.raises(InputError, match="takes one query, not 2"):
        index.explain(np.ones((2, 4)), "a")


def test_filters(index):
    query = np.ones(3)
    assert index.search(query, ids=["c", "b", "b", "unknown"])[0].ids.tolist() == ["b", "c"]
    assert index.search(query, ids=[])[0].ids.tolist() == []
    assert index.search(query, mask=np.array([True, False, True, True]))[0].ids.tolist() == ["a", "c"]
    index.delete(["b"])
    assert index.search(query, mask=np.array([False, True, True]))[0].ids.tolist() == ["c"]


def test_contains_and_length(index):
    assert len(index) == 4
    assert "a" in index
    assert "z" not in index
    assert 3 not in index
    assert None not in index
    index.delete(["a"])
    assert "a" not in index
    index.add(["a"], np.array([[0, 1, 0]]))
    assert "a" in index
    assert repr(index) == "EmbeddedIndex(in memory, documents=4, vocabulary_size=3)"


def test_contains_takes_numpy_ids(index):
    assert np.array(["a"])[0] in index
    numbers = EmbeddedIndex()
    numbers.add([1, 2], np.eye(2))
    assert np.int64(1) in numbers
    assert np.arange(3, dtype=np.int32)[2] in numbers
    for other in (np.int64(3), True, np.bool_(True), 1.0, np.float32(1), "1"):
        assert other not in numbers


def test_adding_nothing_changes_nothing(tmp_path):
    index = EmbeddedIndex(tmp_path / "index")
    before = (tmp_path / "index" / "manifest.json").read_bytes()
    index.add([], sp.csr_matrix((0, 3)))
    assert (tmp_path / "index" / "manifest.json").read_bytes() == before


def test_hits_are_a_sequence_over_two_arrays():
    hits = Hits(np.array([3, 1]), np.array([2.5, 0.5], dtype=np.float32), ["three", None])
    assert hits[0] == Hit(3, 2.5, "three")
    assert hits[-1] == (1, 0.5, None)
    assert type(hits[0].id) is int
    assert type(hits[0].score) is float
    assert list(hits[1:]) == [Hit(1, 0.5, None)]
    assert [hit.id for hit in hits] == [3, 1]
    assert list(hits) == [hits[0], hits[1]]
    assert [type(value) for value in next(iter(hits))] == [int, float, str]
    assert [(type(hit), hit.text) for hit in Hits(hits.ids, hits.scores)] == [(Hit, None)] * 2
    assert repr(hits[:1]) == "Hits([Hit(id=3, score=2.5, text='three')], length=1)"
    with pytest.raises(IndexError):
        hits[2]


def test_hits_of_several_segments_slice_their_texts():
    index = EmbeddedIndex()
    index.add(["a"], np.array([[1.0]]), ["A"])
    index.add(["b"], np.array([[2.0]]), ["B"])
    index.add(["c"], np.array([[3.0]]))
    hits = index.search(np.array([1.0]))[0]
    assert [hit.text for hit in hits] == [None, "B", "A"]
    assert [hits[i].text for i in range(3)] == [None, "B", "A"]
    assert [hit.text for hit in hits[1:]] == ["B", "A"]
    assert hits.scores.dtype == np.float32


def test_open_index_gives_an_index(tmp_path):
    index = open_index(tmp_path / "deep" / "index", vocabulary_size=5, metadata={"model": "m"})
    assert isinstance(index, Index)
    assert (index.vocabulary_size, index.metadata, len(index)) == (5, {"model": "m"}, 0)
    again = open_index(str(tmp_path / "deep" / "index"), metadata={"model": "other"}, create=False)
    assert (again.vocabulary_size, again.metadata) == (5, {"model": "m"})


def test_docstring_example():
    assert doctest.testmod(st_l0.index.embedded.index).attempted > 0
    assert doctest.testmod(st_l0.index.embedded.index).failed == 0
