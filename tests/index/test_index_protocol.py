"""What the protocol promises, for every engine: a new one is added to `ENGINES`."""

import math

import numpy as np
import pytest
import scipy.sparse as sp

from protocol_index import ProtocolIndex
from st_l0.errors import InputError
from st_l0.index import BM25, EmbeddedIndex, Hit, Hits, Index
from st_l0.index.opensearch import OpenSearchIndex

# Name → function: a folder and what a new index is made with → the new, empty index.
ENGINES = {
    "memory": lambda folder, **options: EmbeddedIndex(**options),
    "folder": lambda folder, **options: EmbeddedIndex(folder / "index", **options),
    "protocol": lambda folder, **options: ProtocolIndex(**options),
}
ON_SERVERS = {
    "opensearch": lambda target, **options: OpenSearchIndex(target, **options),
    "opensearch-core": lambda target, **options: without_plugin(OpenSearchIndex(target, **options)),
}
# Token 0 is in a and c, token 1 in b, token 2 in a; "empty" has none.
VECTORS = np.array([[1, 0, 2], [0, 3, 0], [2, 0, 0], [0, 0, 0]], dtype=np.float32)
IDS = ["a", "b", "c", "empty"]


def without_plugin(index):
    """As it is on a server of the core alone; test_opensearch_core.py has such a server."""
    index._neural = False
    return index


@pytest.fixture(params=[*ENGINES, *(pytest.param(name, marks=pytest.mark.opensearch) for name in ON_SERVERS)])
def make(request, tmp_path):
    if request.param in ENGINES:
        return lambda **options: ENGINES[request.param](tmp_path, **options)
    target = request.getfixturevalue("opensearch_target")
    return lambda **options: ON_SERVERS[request.param](target, **options)


@pytest.fixture
def index(make):
    index = make()
    index.add(IDS, VECTORS, ["A", "B", None, ""])
    return index


def found(index, query, **options):
    (hits,) = index.search(np.array(query, np.float32), **options)
    return list(hits)


def test_a_new_index_is_empty(make):
    index = make(vocabulary_size=3, metadata={"model": "m"})
    assert isinstance(index, Index)
    assert (len(index), index.vocabulary_size, index.metadata) == (0, 3, {"model": "m"})
    assert index.missing(["b", "a"]) == ["b", "a"]
    assert found(index, [1, 1, 1]) == []


def test_a_new_index_learns_the_length_of_vectors(make):
    index = make()
    assert index.vocabulary_size is None
    index.add(["a"], VECTORS[:1])
    assert index.vocabulary_size == 3


def test_missing_ids_come_in_the_order_of_the_question(index):
    assert index.missing(["z", "a", "y", "empty", "z"]) == ["z", "y", "z"]
    assert index.missing(iter(["b", "z"])) == ["z"]
    assert index.missing({"b": 1, "y": 2}) == ["y"]
    assert index.missing(IDS) == index.missing([]) == []
    assert index.missing([1, 2]) == [1, 2]
    index.delete(["b"])
    index.update(["a", "y"], VECTORS[:2])
    assert index.missing(["a", "b", "y"]) == ["b"]


def test_missing_int_ids(make):
    index = make()
    index.add(np.array([3, -5]), VECTORS[:2])
    asked = index.missing(np.array([4, 3, -5]))
    assert asked == [4] and type(asked[0]) is int
    assert index.missing(["3"]) == ["3"]


@pytest.mark.parametrize("ids", ["ab", ["a", 1], [1.5], [None]])
def test_ids_of_no_kind_are_refused(index, ids):
    with pytest.raises(InputError, match="ids must be"):
        index.missing(ids)


def test_hits_come_by_falling_score_and_score_above_zero(index):
    best = [Hit("c", 8.0, None), Hit("a", 4.0, "A"), Hit("b", 3.0, "B")]
    assert found(index, [4, 1, 0]) == best
    assert found(index, [4, 1, 0], k=2) == best[:2]
    assert found(index, [0, 0, 0]) == []


def test_a_score_below_zero_is_no_hit(index):
    if isinstance(index, OpenSearchIndex):
        with pytest.raises(InputError, match="negative weight"):
            found(index, [-1, 1, 0])
    else:
        assert found(index, [-1, 1, 0]) == [Hit("b", 3.0, "B")]


def test_a_batch_has_a_result_for_each_query(index):
    first, second, third = index.search(sp.csr_matrix([[0, 0, 1], [0, 0, 0], [0, 1, 0]]), k=10)
    assert [hits.ids.tolist() for hits in (first, second, third)] == [["a"], [], ["b"]]
    assert isinstance(first, Hits)
    assert index.search(sp.csr_matrix((0, 3))) == []


def test_equal_scores_keep_one_order(make):
    index = make()
    ids = [f"d{number}" for number in (5, 3, 9, 1, 7)]
    index.add(ids, np.ones((5, 2), np.float32))
    order = [hit.id for hit in found(index, [1, 0])]
    assert sorted(order) == sorted(ids)
    for k in range(1, 6):
        assert [hit.id for hit in found(index, [0, 1], k=k)] == order[:k]


def test_a_search_among_some(index):
    assert [hit.id for hit in found(index, [1, 1, 1], ids=["c", "nobody", "b"])] == ["b", "c"]
    assert found(index, [1, 1, 1], ids=[]) == []
    assert found(index, [1, 1, 1], k=1, ids=iter(["c"])) == [Hit("c", 2.0, None)]


def test_what_a_run_keeps_of_hits(index):
    (hits,) = index.search(np.array([4, 1, 0], np.float32))
    kept = hits.as_run()
    assert list(kept.items()) == [("c", 8.0), ("a", 4.0), ("b", 3.0)]
    assert all(type(id) is str and type(score) is float for id, score in kept.items())


def test_int_ids_are_str_in_a_run(make):
    index = make()
    index.add([10, 2], VECTORS[:2])
    (hits,) = index.search(np.array([0, 1, 1], np.float32))
    assert [hit.id for hit in hits] == [2, 10]
    assert hits.as_run() == {"2": 3.0, "10": 2.0}


def test_documents_are_replaced_and_removed(index):
    index.update(["a", "new"], VECTORS[[1, 1]], ["A2", "N"])
    assert len(index) == 5
    assert {hit.id: hit.text for hit in found(index, [0, 1, 1])} == {"a": "A2", "b": "B", "new": "N"}
    index.delete(["a", "b"])
    assert len(index) == 3
    assert found(index, [0, 1, 1]) == [Hit("new", 3.0, "N")]


def test_why_a_document_has_its_score(index):
    query = np.array([3, 5, 2], np.float32)
    assert list(index.explain(query, "a").items()) == [(2, (2.0, 2.0)), (0, (3.0, 1.0))]
    assert index.explain(query, "empty") == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.add(["new", "b"], VECTORS[:2]),
        lambda index: index.add(["new", "new"], VECTORS[:2]),
        lambda index: index.add(["new"], VECTORS),
        lambda index: index.add([7], VECTORS[:1]),
        lambda index: index.update(["b"], np.ones((1, 4), np.float32)),
        lambda index: index.update(["b"], np.array([[np.nan, 0, 0]])),
        lambda index: index.delete(["a", "nobody"]),
        lambda index: index.search(np.ones(4)),
        lambda index: index.search(VECTORS, k=0),
        lambda index: index.explain(VECTORS[0], "nobody"),
    ],
)
def test_unusable_input_is_refused_and_changes_nothing(index, call):
    with pytest.raises(InputError) as caught:
        call(index)
    assert "\n" not in str(caught.value)
    assert len(index) == 4
    assert index.missing([*IDS, "new"]) == ["new"]
    assert found(index, [0, 1, 0]) == [Hit("b", 3.0, "B")]


@pytest.fixture
def words(make):
    """The same with words, whose lengths are Lucene's, as every engine can have them."""
    index = make(bm25=BM25("english", lengths="lucene"))
    index.add(IDS, VECTORS, ["cats and dogs", "a cat", "The birds sang!", ""])
    return index


def bm25(idf_of, count, length, mean):
    """BM25 of one word by hand, for k1 1.2 and b 0.75."""
    documents, having = idf_of
    idf = math.log(1 + (documents - having + 0.5) / (having + 0.5))
    return idf * count / (count + 1.2 * (0.25 + 0.75 * length / mean))


def test_what_an_index_with_words_says_of_itself(words, make):
    assert isinstance(words, Index)
    assert words.bm25 == BM25("english", lengths="lucene")
    assert words.bm25_weight is None
    words.bm25_weight = 1.5
    assert words.bm25_weight == 1.5


def test_words_count_beside_vectors(words):
    mean = (2 + 1 + 2) / 3  # of the documents that have any
    a, b = bm25((3, 2), 1, 2, mean), bm25((3, 2), 1, 1, mean)
    assert found(words, [4, 1, 0], texts=["cat"]) == found(words, [4, 1, 0])
    hits = found(words, [4, 1, 0], texts=["The cats"], bm25=40.0)
    assert [hit.id for hit in hits] == ["b", "a", "c"]
    assert [hit.score for hit in hits] == pytest.approx([3 + 40 * b, 4 + 40 * a, 8], rel=1e-6)
    (alone,) = words.search(None, texts=["cat cat unheard"], bm25=1)
    assert alone.as_run() == pytest.approx({"b": 2 * b, "a": 2 * a}, rel=1e-6)
    (few,) = words.search(None, k=1, ids=["a", "c"], texts=["cat bird"], bm25=1)
    assert [hit.id for hit in few] == ["c"]
    assert words.search(np.zeros((2, 3)), texts=["", "unheard"], bm25=1)[1].ids.tolist() == []


def test_statistics_follow_changes(words):
    words.update(["a"], VECTORS[:1], ["A dog"])
    words.delete(["c"])
    (hits,) = words.search(None, texts=["cats"], bm25=1)
    # On a server the two that are gone count until it merges them away, half a minute later at the earliest.
    now, before = bm25((2, 1), 1, 1, 1), bm25((4, 2), 1, 1, (2 + 1 + 2 + 1) / 4)
    score = before if isinstance(words, OpenSearchIndex) else now
    assert hits.as_run() == pytest.approx({"b": score}, rel=1e-6)


def test_why_a_document_with_words_has_its_score(words):
    query = np.array([3, 5, 2], np.float32)
    parts = words.explain(query, "a", text="dog dog bird", bm25=0.5)
    assert list(parts) == [2, 0, "dog"]
    assert (parts[2], parts[0]) == ((2.0, 2.0), (3.0, 1.0))
    assert parts["dog"][0] == pytest.approx(2 * 0.5 * math.log(1 + 2.5 / 1.5))
    (hits,) = words.search(query, texts=["dog dog bird"], bm25=0.5)
    score = {hit.id: hit.score for hit in hits}["a"]
    assert sum(left * right for left, right in parts.values()) == pytest.approx(score, rel=1e-6)
    assert list(words.explain(None, "c", text="birds", bm25=1)) == ["bird"]


def test_the_stored_weight(words):
    with pytest.raises(InputError, match="no weight stored"):
        words.search(None, texts=["cat"], bm25="auto")
    words.bm25_weight = 3.0
    assert found(words, [1, 1, 1], texts=["cat"], bm25="auto") == found(
        words, [1, 1, 1], texts=["cat"], bm25=3
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda index: index.add(["new"], VECTORS[:1]),
        lambda index: index.add(["new"], VECTORS[:1], [None]),
        lambda index: index.update(["b"], VECTORS[:1]),
        lambda index: index.search(VECTORS, bm25=1),
        lambda index: index.search(VECTORS, texts=["cat"], bm25=1),
        lambda index: index.search(VECTORS[:1], texts=[None], bm25=1),
        lambda index: index.search(VECTORS[:1], texts=["cat"], bm25=-1),
        lambda index: index.search(VECTORS[:1], texts=["cat"], bm25=float("nan")),
        lambda index: index.search(VECTORS[:1], texts=["cat"], bm25=True),
        lambda index: index.search(None, texts=["cat"]),
        lambda index: index.search(None, bm25=1),
        lambda index: index.explain(VECTORS[0], "a", bm25=1),
        lambda index: setattr(index, "bm25_weight", -1),
    ],
)
def test_unusable_words_are_refused_and_change_nothing(words, call):
    with pytest.raises(InputError) as caught:
        call(words)
    assert "\n" not in str(caught.value)
    assert (len(words), words.missing([*IDS, "new"]), words.bm25_weight) == (4, ["new"], None)


def test_an_index_without_words_has_none_to_search(index):
    assert (index.bm25, index.bm25_weight) == (None, None)
    for call in (
        lambda: index.search(VECTORS[:1], texts=["cat"], bm25=1),
        lambda: index.search(VECTORS[:1], texts=["cat"]),
        lambda: index.explain(VECTORS[0], "a", text="cat"),
        lambda: setattr(index, "bm25_weight", 1.0),
    ):
        with pytest.raises(InputError, match="holds no words"):
            call()
