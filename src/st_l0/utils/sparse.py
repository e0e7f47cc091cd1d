"""Sparse vectors in one form: scipy CSR, float32, one row a text.

Who searches has no tensors: torch is imported only where something is one, or becomes one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError

if TYPE_CHECKING:
    import torch

Vectors: TypeAlias = "sp.csr_matrix | torch.Tensor | np.ndarray | Sequence[torch.Tensor]"


def as_csr(vectors: Vectors) -> sp.csr_matrix:
    """Bring sparse vectors into one form: float32 CSR, sorted, without explicit zeros or duplicates.

    Args:
        vectors: ``(texts, vocabulary)`` as a torch tensor (dense, COO or CSR), a numpy array, any scipy
            sparse matrix, or a list of ``(vocabulary,)`` tensors. One vector alone becomes one row.

    Returns:
        A matrix of shape ``(texts, vocabulary)``; it may share memory with ``vectors``.

    Raises:
        InputError: a weight is NaN or infinite.
    """
    matrix = _convert(vectors)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # scipy sorts in place, and the arrays may be the caller's
        matrix.sum_duplicates()
    if matrix.nnz and not np.isfinite(matrix.data).all():
        row = (
            int(np.searchsorted(matrix.indptr, np.flatnonzero(~np.isfinite(matrix.data))[0], side="right"))
            - 1
        )
        raise InputError(f"vector {row} holds a weight that is not finite (NaN or infinity)")
    if matrix.nnz and not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def _convert(vectors: Vectors) -> sp.csr_matrix:
    if "torch" in sys.modules:  # or nothing can be a tensor
        import torch

        if isinstance(vectors, torch.Tensor):
            return _from_tensor(vectors.detach())
    if isinstance(vectors, Sequence):
        if not vectors:
            raise InputError("no vectors were given: the list is empty")
        if isinstance(vectors, str | bytes):
            raise InputError(f"{vectors!r:.40} is a text, no vector; encode it first")
        return sp.vstack([_convert(vector) for vector in vectors], format="csr")
    return sp.csr_matrix(vectors, dtype=np.float32)


def _from_tensor(tensor: torch.Tensor) -> sp.csr_matrix:
    import torch

    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.layout is torch.sparse_csr:
        arrays = (tensor.values().float(), tensor.col_indices(), tensor.crow_indices())
        return sp.csr_matrix(tuple(array.cpu().numpy() for array in arrays), shape=tuple(tensor.shape))
    if tensor.layout is torch.sparse_coo:
        # Not coalesced first: for rows in order scipy's conversion is several times faster.
        rows, columns = tensor._indices().cpu().numpy()
        values = tensor._values().float().cpu().numpy()
        return sp.csr_matrix((values, (rows, columns)), shape=tuple(tensor.shape))
    return sp.csr_matrix(tensor.float().cpu().numpy())


def as_torch(matrix: sp.csr_matrix) -> torch.Tensor:
    """Turn CSR into the coalesced COO tensor that sentence-transformers uses for sparse embeddings."""
    import torch

    rows = matrix.shape[0]
    indices = np.zeros((2, len(matrix.indices)), dtype=np.int64)
    indices[1] = matrix.indices
    if rows > 1:
        indices[0] = np.repeat(np.arange(rows), np.diff(matrix.indptr))
    return torch.sparse_coo_tensor(
        torch.from_numpy(indices),
        torch.from_numpy(matrix.data),
        matrix.shape,
        is_coalesced=True,
        check_invariants=False,
    )


def active_dims(matrix: sp.csr_matrix) -> np.ndarray:
    """Number of non-zero weights of each row, shape ``(texts,)``."""
    return np.diff(matrix.indptr)
