"""Sparse rows on a device, against dense matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from st_l0.utils.sparse_rows import SparseRows


def matrix(seed, rows, width, density=0.3):
    return sp.random_array(
        (rows, width), density=density, rng=np.random.default_rng(seed), format="csr", dtype=np.float32
    )


def test_rows_are_gathered_in_any_order():
    parts = [matrix(0, 5, 7), sp.csr_matrix((2, 9), dtype=np.float32), matrix(1, 4, 9)]
    rows = SparseRows.from_scipy(parts, "cpu")
    whole = np.zeros((11, 9), np.float32)
    whole[:5, :7], whole[7:] = parts[0].toarray(), parts[2].toarray()
    assert (len(rows), rows.width) == (11, 9)
    assert torch.equal(rows @ torch.eye(9), torch.from_numpy(whole))
    chosen = torch.tensor([8, 0, 5, 5, 8, 10])
    assert torch.equal(rows[chosen] @ torch.eye(9), torch.from_numpy(whole[chosen]))
    assert torch.equal(rows[chosen].counts(), torch.from_numpy((whole[chosen] != 0).sum(1)))
    torch.testing.assert_close(rows.lengths(), torch.from_numpy(np.linalg.norm(whole, axis=1)))
    none = rows[torch.tensor([], dtype=torch.int64)]
    assert len(none) == 0 and (none @ torch.eye(9)).shape == (0, 9)


def test_a_product_passes_gradients_to_both_sides():
    generator = torch.Generator().manual_seed(0)
    given = matrix(2, 6, 8)
    dense = torch.randn(8, 3, generator=generator, dtype=torch.float64).requires_grad_()
    table = torch.rand(8, generator=generator, dtype=torch.float64).requires_grad_()
    pattern = SparseRows.from_scipy([given], "cpu")
    rows = SparseRows(pattern.columns, table[pattern.columns.long()], pattern.offsets, 8)
    weights = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    found = torch.autograd.grad(((rows @ dense) * weights).sum(), [dense, table])
    plain = (torch.from_numpy(given.toarray() != 0).double() * table) @ dense
    expected = torch.autograd.grad((plain * weights).sum(), [dense, table])
    torch.testing.assert_close(rows @ dense, plain)
    torch.testing.assert_close(found, expected)


def test_products_of_two_sparse_matrices():
    queries, documents = matrix(3, 6, 60, 0.1), matrix(4, 5, 40, 0.2)
    documents.data[:] += 1
    found = SparseRows.from_scipy([queries], "cpu").times(SparseRows.from_scipy([documents], "cpu"))
    expected = queries.toarray()[:, :40] @ documents.toarray().T
    assert (queries.toarray()[:, 40:] != 0).any() and (expected != 0).any()
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)
    nothing = SparseRows.from_scipy([sp.csr_matrix((3, 40), dtype=np.float32)], "cpu")
    assert not SparseRows.from_scipy([queries], "cpu").times(nothing).any()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_gives_the_same():
    one, other = matrix(5, 30, 50), matrix(6, 20, 50)
    near, far = (
        SparseRows.from_scipy([one], device).times(SparseRows.from_scipy([other], device)).cpu()
        for device in ("cpu", "cuda")
    )
    torch.testing.assert_close(near, far)
