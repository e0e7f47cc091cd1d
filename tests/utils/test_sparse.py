import numpy as np
import pytest
import scipy.sparse as sp
import torch

from st_l0.errors import InputError
from st_l0.utils.sparse import active_dims, as_csr, as_torch, keep_largest

DENSE = np.array([[0, 1.5, 0, 2], [0, 0, 0, 0], [0.25, 0, 0, 3], [0, 0, 7, 0]], dtype=np.float32)


def coo(dense, coalesced=True):
    tensor = torch.from_numpy(dense).to_sparse_coo()
    if coalesced:
        return tensor
    # In another order, and one entry in two parts.
    rows, columns = tensor.indices().flip(1)
    values = tensor.values().flip(0).clone()
    values[0] -= 1
    indices = torch.stack([torch.cat([rows, rows[:1]]), torch.cat([columns, columns[:1]])])
    return torch.sparse_coo_tensor(
        indices, torch.cat([values, torch.ones(1)]), tensor.shape, check_invariants=True
    )


def unsorted_csr(dtype):
    """Row 0 is unsorted, row 2 has an entry in two parts, row 3 an explicit zero."""
    data = np.array([2, 1.5, 1, 2, 0.25, 7, 0], dtype=dtype)
    return sp.csr_matrix((data, np.array([3, 1, 3, 3, 0, 2, 1]), np.array([0, 2, 2, 5, 7])), shape=(4, 4))


KINDS = {
    "torch dense": lambda: torch.from_numpy(DENSE.copy()),
    "torch float64": lambda: torch.from_numpy(DENSE.astype(np.float64)),
    "torch bfloat16": lambda: torch.from_numpy(DENSE.copy()).bfloat16(),
    "torch half": lambda: torch.from_numpy(DENSE.copy()).half(),
    "torch with gradient": lambda: torch.from_numpy(DENSE.copy()).requires_grad_(),
    "torch COO": lambda: coo(DENSE),
    "torch COO half": lambda: coo(DENSE).half(),
    "torch COO not coalesced": lambda: coo(DENSE, coalesced=False),
    "torch CSR": lambda: torch.from_numpy(DENSE.copy()).to_sparse_csr(),
    "torch CSR float64": lambda: torch.from_numpy(DENSE.astype(np.float64)).to_sparse_csr(),
    "numpy": lambda: DENSE.copy(),
    "numpy float64": lambda: DENSE.astype(np.float64),
    "numpy in Fortran order": lambda: np.asfortranarray(DENSE),
    "scipy CSR": lambda: sp.csr_matrix(DENSE),
    "scipy CSC": lambda: sp.csc_matrix(DENSE),
    "scipy COO": lambda: sp.coo_matrix(DENSE),
    "scipy CSR array": lambda: sp.csr_array(DENSE),
    "scipy float64": lambda: sp.csr_matrix(DENSE.astype(np.float64)),
    "scipy unsorted": lambda: unsorted_csr(np.float32),
    "scipy unsorted float64": lambda: unsorted_csr(np.float64),
    "list of dense tensors": lambda: list(torch.from_numpy(DENSE.copy())),
    "list of sparse tensors": lambda: [torch.from_numpy(row).to_sparse_coo() for row in DENSE],
    "tuple of tensors": lambda: tuple(torch.from_numpy(DENSE.copy())),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_becomes_the_same_canonical_rows(kind):
    matrix = as_csr(KINDS[kind]())
    assert isinstance(matrix, sp.csr_matrix)
    assert matrix.dtype == np.float32
    assert matrix.shape == (4, 4)
    # Compared array by array: canonical means sorted, without duplicates, without zeros.
    assert matrix.indptr.tolist() == [0, 2, 2, 4, 5]
    assert matrix.indices.tolist() == [1, 3, 0, 3, 2]
    assert matrix.data.tolist() == [1.5, 2, 0.25, 3, 7]
    assert matrix.has_canonical_format


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_given_matrix_keeps_its_values(dtype):
    given = unsorted_csr(dtype)
    as_csr(given)
    np.testing.assert_array_equal(given.toarray(), DENSE)
    assert given.nnz == 7


def test_one_vector_becomes_one_row():
    for vector in (torch.from_numpy(DENSE[0]), torch.from_numpy(DENSE[0]).to_sparse_coo(), DENSE[0]):
        matrix = as_csr(vector)
        assert matrix.shape == (1, 4)
        assert matrix.toarray().tolist() == [[0, 1.5, 0, 2]]


def test_no_rows():
    for vectors in (torch.zeros(0, 5), torch.zeros(0, 5).to_sparse_coo(), sp.csr_matrix((0, 5))):
        assert as_csr(vectors).shape == (0, 5)
    with pytest.raises(InputError, match="the list is empty"):
        as_csr([])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 2, 3])
@pytest.mark.parametrize("kind", [torch.from_numpy, sp.csr_matrix, coo, lambda dense: dense])
def test_a_weight_that_is_not_finite_is_refused_with_its_row(kind, row, bad):
    dense = DENSE.copy()
    dense[row, 2] = bad
    dense[3, 3] = bad
    with pytest.raises(InputError, match=rf"^vector {row} holds a weight that is not finite"):
        as_csr(kind(dense))


def test_explicit_zeros_are_removed_from_a_copy():
    given = sp.csr_matrix((np.array([1, 0, 2], np.float32), np.array([0, 1, 2]), np.array([0, 2, 3])))
    matrix = as_csr(given)
    assert matrix.nnz == 2
    assert given.nnz == 3
    assert matrix.toarray().tolist() == [[1, 0, 0], [0, 0, 2]]
    cancelled = torch.sparse_coo_tensor([[0, 0], [1, 1]], [2.0, -2.0], (1, 3), check_invariants=True)
    assert as_csr(cancelled).nnz == 0


def test_negative_weights_are_kept():
    assert as_csr(np.array([[-1.0, 0.0]])).toarray().tolist() == [[-1.0, 0.0]]


def test_as_torch_and_back():
    matrix = as_csr(DENSE)
    tensor = as_torch(matrix)
    assert tensor.layout is torch.sparse_coo
    assert tensor.dtype is torch.float32
    assert tensor.is_coalesced()
    assert tensor.to_dense().tolist() == DENSE.tolist()
    checked = torch.sparse_coo_tensor(
        tensor.indices(), tensor.values(), tensor.shape, is_coalesced=True, check_invariants=True
    )
    assert checked.to_dense().tolist() == DENSE.tolist()
    back = as_csr(tensor)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(back, name), getattr(matrix, name))
    assert as_torch(sp.csr_matrix((0, 4), dtype=np.float32)).shape == (0, 4)


def test_active_dims():
    assert active_dims(as_csr(DENSE)).tolist() == [2, 0, 2, 1]


@pytest.mark.parametrize("text", ["a text", b"bytes", ["a", "list"]])
def test_texts_are_no_vectors(text):
    with pytest.raises(InputError, match="is a text, no vector; encode it first"):
        as_csr(text)


@pytest.mark.parametrize("most", [1, 3, 7, 20, 40])
def test_the_largest_weights_of_a_row_by_sorting(most):
    generator = np.random.default_rng(0)
    dense = generator.integers(0, 5, (30, 20)).astype(np.float32)  # many ties
    dense[4] = 0
    kept = keep_largest(sp.csr_matrix(dense), most)
    expected = np.zeros_like(dense)
    for row, weights in enumerate(dense):
        for column in sorted(range(20), key=lambda column: (-weights[column], column))[:most]:
            expected[row, column] = weights[column]
    np.testing.assert_array_equal(kept.toarray(), expected)
    assert kept.has_canonical_format and kept.data.all()


def test_nothing_is_copied_where_no_row_has_more():
    matrix = sp.csr_matrix(np.eye(3, dtype=np.float32))
    assert keep_largest(matrix, None) is matrix
    assert keep_largest(matrix, 1) is matrix
    with pytest.raises(InputError, match="max_active_dims is 0; give at least 1"):
        keep_largest(matrix, 0)
