"""What `encode` is given, and what it gives back of nothing: as stock where stock has an answer."""

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import sentence_transformers
import torch
from datasets import Dataset

from st_l0 import QueryEncoder, SparseEncoder
from st_l0.encoder.query_tokenizer import QueryTokenizer
from st_l0.errors import InputError
from tiny_models import VOCABULARY, dense, save_model

TEXTS = ["the cat sat on a tree", "red snow"]
TASKS = ("query", "document")
SIZE = len(VOCABULARY)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mlm_folder, idf_weights):
    model = SparseEncoder.from_mlm(mlm_folder, idf=idf_weights, device="cpu")
    return save_model(model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder):
    return SparseEncoder.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def stock(folder):
    return sentence_transformers.SparseEncoder(folder, device="cpu")


@pytest.fixture(scope="module")
def queries(folder):
    return QueryEncoder.from_pretrained(folder)


def encode(model, task, given, **options):
    return (model.encode_query if task == "query" else model.encode_document)(given, **options)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    "given",
    [
        lambda: tuple(TEXTS),
        lambda: (text for text in TEXTS),
        lambda: np.array(TEXTS),
        lambda: pd.Series(TEXTS, index=["a", "b"]),
        lambda: Dataset.from_dict({"text": TEXTS})["text"],
        lambda: [{"text": text} for text in TEXTS],
    ],
    ids=["tuple", "generator", "numpy", "pandas", "datasets", "dictionaries"],
)
def test_every_list_of_texts_encodes_as_a_list(model, queries, stock, task, given):
    expected = dense(encode(stock, task, TEXTS))
    np.testing.assert_allclose(dense(encode(model, task, given())), expected, atol=1e-5)
    if task == "query":
        np.testing.assert_array_equal(dense(queries.encode_query(given())), expected)


def test_a_dictionary_with_a_text_is_one_document_as_in_stock(model, queries, stock):
    expected = stock.encode_document({"text": TEXTS[0]}).to_dense()
    assert expected.shape == (SIZE,)
    torch.testing.assert_close(model.encode_document({"text": TEXTS[0]}).to_dense(), expected)
    for task in TASKS:  # of which stock takes the second only
        one, same = (encode(model, task, given) for given in (TEXTS[0], {"text": TEXTS[0]}))
        assert torch.equal(one.to_dense(), same.to_dense())
    assert queries.encode_query({"text": TEXTS[0]}).shape == (1, SIZE)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"d1": TEXTS[0], "d2": TEXTS[1]}, r"a dict \(of 'd1', 'd2'\) is no list of texts"),
        (pd.DataFrame({"title": ["t"], "text": ["x"]}), "a DataFrame is a table"),
        (["a", None], "text 1 is None"),
        (["a", float("nan")], "text 1 is nan"),
        ([*TEXTS, "x\ud800"], r"text 2 holds a lone surrogate, '\\ud800' at character 1"),
        ("x\ud800", "text 0 holds a lone surrogate"),
        (b"bytes", "bytes is no list of texts: decode it first"),
        (3, "3 .int. is no list of texts"),
        (None, "None is no list of texts"),
        ([["a", "b"]], "text 0 is a list"),
        ([("a", "b")], "text 0 is a tuple"),
        ([1, 2], "text 0 is 1"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(model, queries, task, given, message):
    encoders = [model.encode_query, queries.encode_query] if task == "query" else [model.encode_document]
    for one in encoders:
        with pytest.raises(InputError, match=f"^{message}") as caught:
            one(given)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=f"^{message}"):
        model.encode(given, task=task, processing_kwargs={"text": {}})  # and before the stock path


@pytest.mark.parametrize("options", [{}, {"pool": True}], ids=["here", "pool"])
@pytest.mark.parametrize("task", TASKS)
def test_no_texts_have_as_many_columns_as_others(model, task, options):
    # A pool of no texts starts no work, so that none is needed.
    options = {"pool": {"processes": []}} if options else {}
    for given in ([], (), np.array([], dtype=str), iter([])):
        matrix = encode(model, task, given, convert_to_scipy=True, **options)
        assert isinstance(matrix, sp.csr_matrix)
        assert (matrix.shape, matrix.dtype) == ((0, SIZE), np.float32)
    for sparse in (True, False):
        tensor = encode(model, task, [], convert_to_sparse_tensor=sparse, **options)
        assert (tensor.shape, tensor.is_sparse) == ((0, SIZE), sparse)
        assert (
            encode(model, task, [], convert_to_tensor=False, convert_to_sparse_tensor=sparse, **options) == []
        )


def test_a_siamese_model_refuses_and_gives_the_same(tiny_encoder):
    siamese = tiny_encoder(idf=None)
    assert siamese.encode_query([], convert_to_scipy=True).shape == (0, SIZE)
    assert siamese.encode_query({"text": "cat"}).shape == (SIZE,)
    with pytest.raises(InputError, match=r"^text 1 is None"):
        siamese.encode_query(["cat", None])


@pytest.fixture
def tokenizer(queries):
    return queries.tokenizer


WEIGHTS = np.arange(SIZE, dtype=np.float32)
WEIGHTS[:5] = 0  # the special tokens


@pytest.mark.parametrize(
    "given",
    [
        WEIGHTS,
        WEIGHTS.astype(np.float64),
        WEIGHTS.astype(np.int64),
        WEIGHTS.tolist(),
        torch.from_numpy(WEIGHTS.copy()),
        torch.from_numpy(WEIGHTS.copy()).to_sparse(),
        torch.nn.Parameter(torch.from_numpy(WEIGHTS.copy())),
        torch.arange(SIZE),
        {token: float(weight) for token, weight in zip(VOCABULARY, WEIGHTS, strict=True)},
        dict(zip(VOCABULARY, WEIGHTS, strict=True)),
        dict(zip(VOCABULARY, torch.from_numpy(WEIGHTS.copy()), strict=True)),
    ],
    ids=lambda given: type(given).__name__,
)
def test_query_weights_of_every_kind_are_the_same(mlm_folder, tokenizer, given):
    model = SparseEncoder.from_mlm(mlm_folder, idf=given, punctuation=True, device="cpu")
    np.testing.assert_array_equal(model.query_weights, WEIGHTS)
    np.testing.assert_array_equal(QueryEncoder(tokenizer, given).query_weights, WEIGHTS)


def test_a_dictionary_gives_other_tokens_the_weight_1_as_its_file_does(mlm_folder):
    model = SparseEncoder.from_mlm(mlm_folder, idf={"cat": 3}, device="cpu")
    cat, dog = (VOCABULARY.index(word) for word in ("cat", "dog"))
    row = model.encode_query("cat dog").to_dense()
    assert (row[cat], row[dog]) == (3, 1)


def wrong(token, weight):
    weights = WEIGHTS.copy()
    weights[VOCABULARY.index(token)] = weight
    return weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (wrong("cat", np.nan), "idf: the weight of 'cat' is nan"),
        (wrong("dog", np.inf), "idf: the weight of 'dog' is inf"),
        (wrong("dog", -1), "idf: the weight of 'dog' is -1.0"),
        (torch.from_numpy(wrong("cat", np.nan)), "idf: the weight of 'cat' is nan"),
        (wrong("cat", np.nan).tolist(), "idf: the weight of 'cat' is nan"),
        ({"cat": float("nan")}, "idf: the weight of 'cat' is nan"),
        ({"cat": -2}, "idf: the weight of 'cat' is -2"),
        ({"cat": "2"}, "idf: the weight of 'cat' is '2'"),
        ({"cat": None}, "idf: the weight of 'cat' is None"),
        ({"cat": True}, "idf: the weight of 'cat' is True"),
        ({"zebra": 1.0}, "idf: 1 of 1 entries are not in the tokenizer's vocabulary ('zebra')"),
        ({7: 1.0}, "idf: 7 is no token"),
        (WEIGHTS[:-1], f"idf has the shape ({SIZE - 1},), but the tokenizer knows {SIZE} tokens"),
        (WEIGHTS[None], f"idf has the shape (1, {SIZE}), but the tokenizer knows {SIZE} tokens"),
        ([], f"idf has the shape (0,), but the tokenizer knows {SIZE} tokens"),
        (1.0, f"idf has the shape (), but the tokenizer knows {SIZE} tokens"),
        (["cat"], "idf is a list; give the path of an idf.json, a dictionary"),
        (object(), "idf is a object; give the path of an idf.json"),
    ],
)
def test_query_weights_that_cannot_be_are_refused_by_token(mlm_folder, tokenizer, given, message):
    for make in (
        lambda: SparseEncoder.from_mlm(mlm_folder, idf=given, device="cpu"),
        lambda: QueryEncoder(tokenizer, given),
    ):
        with pytest.raises(InputError) as caught:
            make()
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)


def test_weights_below_0_of_a_checkpoint_go_on_counting_as_0(model, folder, tmp_path):
    stock = sentence_transformers.SparseEncoder(folder, device="cpu")
    stock[0].sub_modules["query"][0].weight.data[VOCABULARY.index("cat")] = -1
    save_model(stock, tmp_path)
    encoder = QueryEncoder.from_pretrained(tmp_path)
    assert isinstance(encoder.tokenizer, QueryTokenizer)
    assert encoder.encode_query(["cat"]).nnz == 0
