"""What the methods of an index take, in every form that people have, and what they say of the rest."""

import uuid
from collections import UserDict

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, open_index

EYE = np.eye(3, dtype=np.float32)
QUERY = np.array([[1, 0, 2]], dtype=np.float32)  # finds "c" with 2, then "a" with 1


def make(ids=("a", "b", "c")):
    index = EmbeddedIndex()
    index.add(list(ids), EYE, ["A", "B", "C"])
    return index


def refused(call, message):
    with pytest.raises(InputError) as caught:
        call()
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "query",
    [
        QUERY,
        QUERY[0],
        QUERY[0].tolist(),
        tuple(QUERY[0].tolist()),
        QUERY.tolist(),
        [QUERY[0]],
        [torch.tensor(QUERY[0])],
        [sp.csr_matrix(QUERY)],
        np.array([list(QUERY[0])], dtype=object),
        pd.DataFrame(QUERY),
        pd.Series(QUERY[0]),
        *(QUERY.astype(kind) for kind in (np.float16, np.float64, np.int8, np.int64, np.uint8)),
        *(sp.csr_matrix(QUERY).asformat(name) for name in ("csc", "coo", "lil", "dok", "bsr", "dia")),
        sp.csr_array(QUERY),
        sp.coo_array(QUERY[0]),
        sp.csr_matrix(QUERY.astype(np.int64)),
        torch.tensor(QUERY),
        torch.tensor(QUERY[0]).to_sparse(),
        torch.tensor(QUERY).to_sparse(),
        torch.tensor(QUERY).to_sparse(1),
        torch.tensor(QUERY).to_sparse_csr(),
        torch.tensor(QUERY).to_sparse_csc(),
        torch.tensor(QUERY).to_sparse_bsr((1, 1)),
        *(torch.tensor(QUERY).to(kind) for kind in (torch.half, torch.bfloat16, torch.double, torch.int32)),
        torch.tensor(QUERY, requires_grad=True),
    ],
    ids=lambda query: type(query).__name__,
)
def test_vectors_of_every_kind_find_the_same(query):
    (hits,) = make().search(query)
    assert [(hit.id, hit.score) for hit in hits] == [("c", 2), ("a", 1)]


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        ("a text", "'a text' is a text, no vector; encode it first"),
        (["a"], "vector 0: 'a' is a text, no vector"),
        ([QUERY[0], "b"], "vector 1: 'b' is a text, no vector"),
        (np.array(["a"]), "'a' is a text, no vector"),
        (np.array(["a"], dtype=object), "vector 0: 'a' is a text, no vector"),
        (pd.Series(["a"]), "vector 0: 'a' is a text, no vector"),
        (b"bytes", "b'bytes' is a text, no vector"),
        (None, "None is no vector; give a matrix of numbers"),
        (3, "3 (int) is no vector"),
        ({"cat": 1.0}, "a dictionary of 'cat' is no vector"),
        ({1, 2}, "{1, 2} (set) is no vector"),
        ((row for row in QUERY), "a generator is no vector"),
        ([None], "vector 0: None is no vector"),
        ([QUERY[0], None], "vector 1: None is no vector"),
        ([], "no vectors were given: the list is empty"),
        ([torch.ones(3), torch.ones(2)], "vector 1 has 2 dimensions, vector 0 3: encode all with the same"),
        ([[1, 0, 2], [1, 0]], "vector 1 has 2 dimensions, vector 0 3"),
        (QUERY.astype(complex), "vectors hold real numbers"),
        (torch.tensor(QUERY).to(torch.complex64), "vectors hold real numbers"),
        (sp.csr_matrix(QUERY.astype(complex)), "vectors hold real numbers"),
        (np.array(1.0), "vectors have the shape (texts, vocabulary), not ()"),
        (QUERY[None], "vectors have the shape (texts, vocabulary), not (1, 1, 3)"),
        (torch.tensor(QUERY)[None], "vectors have the shape (texts, vocabulary), not (1, 1, 3)"),
        (np.ones((1, 2)), "the vectors have 2 dimensions, those of the index 3"),
        (np.ones((1, 4)), "the vectors have 4 dimensions, those of the index 3"),
        (np.array([[1, 0, 0], [0, np.nan, 0]]), "vector 1 holds a weight that is not finite"),
        (torch.tensor([[1, 0, 0], [0, 0, float("-inf")]]), "vector 1 holds a weight that is not finite"),
        (np.array([[1e300, 0, 0]]), "vector 0 holds a weight that is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_what_is_no_vector_is_refused_by_place(vectors, message):
    index = make()
    refused(lambda: index.search(vectors), message)
    if not hasattr(vectors, "__next__"):
        refused(lambda: index.add(["d"], vectors), message)
    assert len(index) == 3


def built(data, indices, indptr, shape):
    """A matrix as scipy lets anybody build it: what it names is not looked at."""
    return sp.csr_matrix(
        (np.array(data, np.float32), np.array(indices, np.int32), np.array(indptr, np.int32)), shape=shape
    )


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (lambda: built([1], [3], [0, 1], (1, 3)), "vector 0 has a weight in dimension 3, but 3 in all"),
        (lambda: built([1], [-1], [0, 1], (1, 3)), "vector 0 has a weight in dimension -1, but 3 in all"),
        (lambda: built([1], [10**8], [0, 1], (1, 3)), "vector 0 has a weight in dimension 100000000, but 3"),
        (lambda: built([1, 1], [0, 9], [0, 1, 2], (2, 3)), "vector 1 has a weight in dimension 9, but 3"),
        (lambda: built([1, 1], [0, 1], [0, 2, 1, 2], (3, 3)), "the row pointers (indptr) of the matrix"),
    ],
)
def test_a_matrix_that_names_what_it_has_not_is_refused(matrix, message):
    # One such ended the process.
    index = make()
    refused(lambda: index.search(matrix()), message)
    refused(lambda: index.add(list("xyz")[: matrix().shape[0]], matrix()), message)


@pytest.mark.parametrize(("k", "found"), [(1, 1), (np.int64(1), 1), (np.uint8(255), 2), (10**30, 2)])
def test_k_is_a_whole_number(k, found):
    assert len(make().search(QUERY, k)[0]) == found


@pytest.mark.parametrize("k", [0, -1, np.int64(0), True, np.True_, 1.0, 2.5, float("nan"), "3", None, [1]])
def test_another_k_is_refused(k):
    refused(lambda: make().search(QUERY, k), f"k must be a whole number of at least 1, not {k!r}")


@pytest.mark.parametrize("size", [0, -1, True, 1.5, 3.0, "3", float("nan")])
def test_another_vocabulary_size_is_refused(size):
    refused(
        lambda: EmbeddedIndex(vocabulary_size=size),
        f"vocabulary_size must be a whole number of at least 1, not {size!r}",
    )


def test_a_vocabulary_size_of_numpy_can_be_written(tmp_path):
    EmbeddedIndex(tmp_path / "index", vocabulary_size=np.int64(3))
    assert EmbeddedIndex(tmp_path / "index").vocabulary_size == 3


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (np.arange(3, dtype=np.int32), [0, 1, 2]),
        (range(3), [0, 1, 2]),
        (torch.arange(3), [0, 1, 2]),
        (pd.Series([4, 5, 6], index=[9, 8, 7]), [4, 5, 6]),
        (pd.Index(list("abc")), list("abc")),
        (pd.Series(list("abc"), dtype="category"), list("abc")),
        ([np.int64(1), 2, -3], [1, 2, -3]),
        (np.array(list("abc")), list("abc")),
        (dict.fromkeys("abc"), list("abc")),
        (iter("abc"), list("abc")),
    ],
)
def test_ids_of_every_kind_are_kept(ids, expected):
    index = EmbeddedIndex()
    index.add(ids, EYE)
    assert index.ids().tolist() == expected
    assert [hits.ids.tolist() for hits in index.search(EYE)] == [[id] for id in expected]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", 1, "b"], "ids must be all str or all int, not int and str: number 1 is 1 (int)"),
        ([None, "a", "b"], "ids must be all str or all int, not NoneType and str: number 0 is None"),
        ([None] * 3, "ids must be all str or all int, not NoneType: number 0 is None"),
        (["a", float("nan"), "b"], "ids must be all str or all int, not float and str: number 1 is nan"),
        ([1, 2, True], "ids must be all str or all int, not bool and int: number 2 is True (bool)"),
        (np.array([True, False, True]), "ids must be all str or all int, not bool: number 0 is True"),
        ([1.0, 2.0, 3.0], "ids must be all str or all int, not float: number 0 is 1.0 (float)"),
        (torch.arange(3.0), "ids must be all str or all int, not float: number 0 is 0.0 (float)"),
        (pd.Series([1, None, 3]), "ids must be all str or all int, not float: number 0 is 1.0"),
        ([b"a", b"b", b"c"], "ids must be all str or all int, not bytes: number 0 is bytes"),
        ([("a",), ("b",), ("c",)], "ids must be all str or all int, not tuple: number 0 is a tuple"),
        ([["a"], "b", "c"], "ids must be all str or all int, not list and str: number 0 is a list"),
        ([uuid.UUID(int=1)] * 3, "ids must be all str or all int, not UUID: number 0 is UUID("),
        ([2**63, 1, 2], "an int id does not fit into 64 bits"),
        (np.array([["a"], ["b"], ["c"]]), "ids must be a list of ids, not a ndarray of shape (3, 1)"),
        (np.array("a"), "ids must be a list of ids, not a ndarray of shape ()"),
        ("abc", "ids must be a list of ids, not the single 'abc'"),
        (None, "ids must be a list of ids, not None"),
        (3, "ids must be a list of ids, not 3"),
        ({"a", "b", "c"}, "ids must be in the order of the vectors, which a set has not: give a list"),
        (["a", "b", "a"], "id 'a' is given more than once"),
        ([1, np.int64(1), 2], "id 1 is given more than once"),
        (["a", "b"], "2 ids were given for 3 vectors"),
        ([], "0 ids were given for 3 vectors"),
    ],
)
def test_other_ids_are_refused_by_place(ids, message):
    index = EmbeddedIndex()
    refused(lambda: index.add(ids, EYE), message)
    assert len(index) == 0
    if ids is not None and "vectors" not in message and "more than once" not in message:
        for call in (index.missing, index.delete, lambda ids: index.search(QUERY, ids=ids)):
            refused(lambda call=call: call(ids), message)


def test_where_order_means_nothing_a_set_of_ids_will_do():
    index = make()
    assert index.search(QUERY, ids={"a", "x"})[0].ids.tolist() == ["a"]
    assert index.missing({"x"}) == ["x"]
    index.delete({"a", "b"})
    assert index.ids().tolist() == ["c"]


@pytest.mark.parametrize("id", [True, 1.0, None, ["a"], 2])
def test_explain_takes_no_other_id(id):
    with pytest.raises(InputError):
        make((1, 3, 4)).explain(QUERY, id)
    assert make((1, 3, 4)).explain(QUERY, np.int64(1)) == {0: (1.0, 1.0)}


@pytest.mark.parametrize(
    "texts", [("A", None, "C"), (text for text in ("A", None, "C")), np.array(["A", None, "C"], object)]
)
def test_texts_of_every_kind_are_kept(texts):
    index = EmbeddedIndex()
    index.add(["a", "b", "c"], EYE, texts)
    assert [hits[0].text for hits in index.search(EYE)] == ["A", None, "C"]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("ABC", "'ABC' is one text where a list of texts is expected"),
        ({"a": "A", "b": "B", "c": "C"}, "a dict (of 'a', 'b', 'c') is no list of texts"),
        (pd.DataFrame({"t": ["A", "B", "C"]}), "a DataFrame is a table"),
        ({"A", "B", "C"}, "a set has no order"),
        (3, "3 (int) is no list of texts"),
        (["A", float("nan"), "C"], "text 1 is nan, no string: give one, or None where there is none"),
        (["A", "B", 3], "text 2 is 3 (int), no string"),
        ([b"A", "B", "C"], "text 0 is bytes, no string"),
        ([["A"], "B", "C"], "text 0 is a list, no string"),
        (["A", "B"], "3 ids were given for 2 texts"),
    ],
)
def test_other_texts_are_refused_by_place(texts, message):
    index = EmbeddedIndex()
    refused(lambda: index.add(["a", "b", "c"], EYE, texts), message)
    assert len(index) == 0


def test_metadata_is_a_json_object():
    given = UserDict({"a": [1, None, "ü"]})
    assert EmbeddedIndex(metadata=given).metadata == {"a": [1, None, "ü"]}
    round_and_round = {}
    round_and_round["self"] = round_and_round
    for wrong in ([("a", 1)], "a", 3, True, {"a": {1}}, {"a": float("nan")}, {("a",): 1}, round_and_round):
        refused(lambda wrong=wrong: EmbeddedIndex(metadata=wrong), "metadata must be a JSON object")


@pytest.mark.parametrize("path", [3, 1.5, True, b"folder", ["folder"], "", "a\0b"])
def test_what_is_no_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for call in (open_index, EmbeddedIndex, make().save):
        refused(lambda call=call: call(path), f"{path!r} is no path of a folder; give a str or a Path")
    refused(
        lambda: open_index(None), "target is None; give a folder, or EmbeddedIndex() for an index in memory"
    )
    assert list(tmp_path.iterdir()) == []
