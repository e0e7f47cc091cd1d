"""Similarities of vectors in every form: by hand, and as stock computes those that it takes."""

import numpy as np
import pytest
import scipy.sparse as sp
import sentence_transformers
import torch

from st_l0.errors import InputError

FIRST = np.array([[1, 0, 2], [0, 3, 0]], dtype=np.float32)
SECOND = np.array([[1, 1, 0], [0, 1, 1]], dtype=np.float32)
KINDS = {
    "numpy": np.array,
    "read-only numpy": lambda rows: np.broadcast_to(rows, rows.shape),
    "float64": lambda rows: rows.astype(np.float64),
    "float16": lambda rows: rows.astype(np.float16),
    "integers": lambda rows: rows.astype(np.int64),
    "bfloat16": lambda rows: torch.tensor(rows).bfloat16(),
    "torch": torch.tensor,
    "COO": lambda rows: torch.tensor(rows).to_sparse(),
    "torch CSR": lambda rows: torch.tensor(rows).to_sparse_csr(),
    "torch CSC": lambda rows: torch.tensor(rows).to_sparse_csc(),
    "scipy CSR": sp.csr_matrix,
    "scipy CSC": sp.csc_matrix,
    "scipy array": sp.csr_array,
    "tensors": lambda rows: list(torch.tensor(rows)),
    "sparse tensors": lambda rows: [torch.tensor(row).to_sparse() for row in rows],
    "both kinds of tensors": lambda rows: [torch.tensor(rows[0]), torch.tensor(rows[1]).to_sparse()],
    "arrays": list,
    "lists": lambda rows: rows.tolist(),
}
ALL = {
    "dot": [[1, 2], [3, 3]],
    "cosine": [[1 / 10**0.5, 2 / 10**0.5], [1 / 2**0.5, 1 / 2**0.5]],
    "euclidean": [[-(5**0.5), -(3**0.5)], [-(5**0.5), -(5**0.5)]],
    "manhattan": [[-3, -3], [-3, -3]],
}


@pytest.fixture(scope="module", params=["dot", "cosine", "euclidean", "manhattan"])
def model(request, mlm_folder, idf_weights):
    from st_l0 import SparseEncoder

    model = SparseEncoder.from_mlm(mlm_folder, idf=idf_weights, device="cpu")
    model.similarity_fn_name = request.param
    return model


@pytest.mark.parametrize("right", ["numpy", "COO", "scipy CSR", "scipy CSC"])
@pytest.mark.parametrize("left", KINDS)
def test_vectors_of_every_kind_compare_with_each_other(model, left, right):
    expected = np.array(ALL[model.similarity_fn_name], dtype=np.float32)
    one, other = KINDS[left](FIRST), KINDS[right](SECOND)
    for found, wanted in (
        (model.similarity(one, other), expected),
        (model.similarity(other, one), expected.T),
        (model.similarity_pairwise(one, other), np.diag(expected)),
        (model.similarity_pairwise(other, one), np.diag(expected)),
    ):
        assert found.layout is torch.strided
        np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("kind", ["numpy", "torch", "COO", "scipy CSR"])
def test_one_vector_is_compared_with_each(model, kind):
    expected = np.array(ALL[model.similarity_fn_name], dtype=np.float32)[0]
    for one in (
        FIRST[0],
        torch.tensor(FIRST[0]),
        torch.tensor(FIRST[0]).to_sparse(),
        sp.csr_matrix(FIRST[:1]),
    ):
        np.testing.assert_allclose(model.similarity(one, KINDS[kind](SECOND)), expected[None], rtol=1e-5)
        np.testing.assert_allclose(model.similarity_pairwise(one, KINDS[kind](SECOND)), expected, rtol=1e-5)


def test_stock_agrees_where_it_has_an_answer(model):
    stock = sentence_transformers.SparseEncoder(modules=list(model.children()), device="cpu")
    stock.similarity_fn_name = model.similarity_fn_name
    answers = 0
    for make in KINDS.values():
        for one, other in ((make(FIRST), make(SECOND)), (make(FIRST), torch.tensor(SECOND[0]))):
            for name in ("similarity", "similarity_pairwise"):
                try:
                    expected = getattr(stock, name)(one, other)
                except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
                    continue
                found = getattr(model, name)(one, other)
                if not expected.is_floating_point():  # integers compared with integers
                    expected = expected.float()
                torch.testing.assert_close(found, expected)
                answers += 1
    assert answers > 20


def test_what_encode_gives_for_scipy_compares(tiny_encoder):
    model = tiny_encoder()
    texts = ["the cat", "red snow", ""]
    tensors = model.encode_query(texts), model.encode_document(texts)
    matrices = (
        model.encode_query(texts, convert_to_scipy=True),
        model.encode_document(texts, convert_to_scipy=True),
    )
    expected = (matrices[0] @ matrices[1].T).toarray()
    for one, other in (tensors, matrices, (tensors[0], matrices[1]), (matrices[0], tensors[1])):
        np.testing.assert_allclose(model.similarity(one, other), expected, rtol=1e-5)
        np.testing.assert_allclose(model.similarity_pairwise(one, other), np.diag(expected), rtol=1e-5)
    assert model.similarity(model.encode_query([]), tensors[1]).shape == (0, 3)


def test_gradients_go_through(tiny_encoder):
    model = tiny_encoder()
    vectors = torch.tensor(FIRST, requires_grad=True)
    model.similarity(vectors, sp.csr_matrix(SECOND)).sum().backward()
    assert vectors.grad.tolist() == [[1, 2, 1], [1, 2, 1]]


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            FIRST,
            np.ones((2, 4)),
            "embeddings1 has 3 dimensions, embeddings2 4: encode both with the same model",
        ),
        (sp.csr_matrix(FIRST), torch.ones(2, 4).to_sparse(), "embeddings1 has 3 dimensions, embeddings2 4"),
        (np.ones((1, 2, 3)), SECOND, r"embeddings1 has the shape \(1, 2, 3\): give one vector, or a row for"),
        ("a text", SECOND, "'a text' is a text, no vector; encode it first"),
        (FIRST, ["a", "b"], "vector 0: 'a' is a text, no vector"),
        (None, SECOND, "None is no vector"),
        ({"a": 1}, SECOND, "a dictionary of 'a' is no vector"),
        ([], SECOND, "no vectors were given: the list is empty"),
        (FIRST.astype(complex), SECOND, "vectors hold real numbers"),
    ],
)
def test_what_cannot_be_compared_is_refused_in_one_line(tiny_encoder, first, second, message):
    model = tiny_encoder()
    for compare in (model.similarity, model.similarity_pairwise):
        with pytest.raises(InputError, match=f"^{message}"):
            compare(first, second)


def test_pairs_need_as_many_of_each(tiny_encoder):
    for first in (np.ones((3, 3)), torch.ones(3, 3).to_sparse(), sp.csr_matrix(np.ones((3, 3)))):
        with pytest.raises(
            InputError, match="embeddings1 holds 3 vectors, embeddings2 2: give as many of each"
        ):
            tiny_encoder().similarity_pairwise(first, SECOND)


@pytest.mark.parametrize("form", [sp.csr_matrix, sp.coo_array, np.asarray, torch.tensor, list])
def test_vectors_of_every_kind_are_read(tiny_encoder, form):
    model = tiny_encoder()
    rows = np.zeros((2, 127), np.float32)
    rows[0, [10, 11]], rows[1, 11] = (2, 1), 3
    words = model.tokenizer.convert_ids_to_tokens([10, 11])
    given = form(rows.tolist() if form is list else rows)
    assert model.decode(given, top_k=5) == [[(words[0], 2), (words[1], 1)], [(words[1], 3)]]
    assert model.sparsity(given)["active_dims"] == 1.5
    shared = model.intersection(form(rows[:1].tolist() if form is list else rows[:1]), given)
    assert model.decode(shared) == [[(words[0], 4), (words[1], 1)], [(words[1], 3)]]


def test_what_is_no_vector_is_not_read(tiny_encoder):
    model = tiny_encoder()
    for call in (model.decode, model.sparsity, lambda given: model.intersection(given, np.ones(127))):
        with pytest.raises(InputError, match="is a text, no vector"):
            call("rain")
