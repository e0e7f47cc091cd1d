"""Sparse vectors in one form: scipy CSR, float32, one row a text.

Who searches has no tensors: torch is imported only where something is one, or becomes one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.utils.inputs import describe

if TYPE_CHECKING:
    import torch

Vectors: TypeAlias = "sp.csr_matrix | torch.Tensor | np.ndarray | Sequence[torch.Tensor]"


def as_csr(vectors: Vectors) -> sp.csr_matrix:
    """Bring sparse vectors into one form: float32 CSR, sorted, without explicit zeros or duplicates.

    Args:
        vectors: ``(texts, vocabulary)`` as a torch tensor of any layout, a numpy array, any scipy sparse
            matrix, or a list of vectors. One vector alone becomes one row.

    Returns:
        A matrix of shape ``(texts, vocabulary)``; it may share memory with ``vectors``, or be the same.

    Raises:
        InputError: these are no vectors (texts, None, complex numbers …), of different lengths or of more
            than two dimensions; a weight is NaN or infinite; or a matrix names columns that it has not.
    """
    matrix = _convert(vectors)
    if not matrix.nnz:
        return matrix
    _check_columns(matrix)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()  # scipy sorts in place, and the arrays may be the caller's
        matrix.sum_duplicates()
    if not np.isfinite(matrix.data).all():
        row = (
            int(np.searchsorted(matrix.indptr, np.flatnonzero(~np.isfinite(matrix.data))[0], side="right"))
            - 1
        )
        raise InputError(f"vector {row} holds a weight that is not finite (NaN or infinity)")
    if not matrix.data.all():
        matrix = matrix.copy()
        matrix.eliminate_zeros()
    return matrix


def _check_columns(matrix: sp.csr_matrix) -> None:
    """Refuse what scipy lets a caller build, and what would read memory that is not the matrix's."""
    # Seen as unsigned, a negative number is a large one: one look for both.
    largest = int(matrix.indices.view(f"u{matrix.indices.itemsize}").max())
    if largest >= matrix.shape[1]:
        bad = matrix.indices.astype(np.int64)
        place = int(np.flatnonzero((bad < 0) | (bad >= matrix.shape[1]))[0])
        row = int(np.searchsorted(matrix.indptr, place, side="right")) - 1
        raise InputError(f"vector {row} has a weight in dimension {bad[place]}, but {matrix.shape[1]} in all")
    if matrix.shape[0] > 1 and (matrix.indptr[1:] < matrix.indptr[:-1]).any():
        raise InputError("the row pointers (indptr) of the matrix descend: build it anew")


def _convert(vectors: Any) -> sp.csr_matrix:
    if type(vectors) is sp.csr_matrix and vectors.dtype == np.float32:
        return vectors
    if "torch" in sys.modules:  # or nothing can be a tensor
        import torch

        if isinstance(vectors, torch.Tensor):
            return _from_tensor(vectors.detach())
    if sp.issparse(vectors):
        _check_shape(vectors.dtype.kind, vectors.shape)
        return sp.csr_matrix(vectors if vectors.ndim == 2 else vectors.reshape(1, -1), dtype=np.float32)
    if isinstance(vectors, str | bytes):
        raise InputError(f"{vectors!r:.40} is a text, no vector; encode it first")
    if isinstance(vectors, Sequence):
        return _from_list(vectors)
    if not hasattr(vectors, "__array__"):
        raise InputError(f"{describe(vectors)} is no vector; give a matrix of numbers, as encode makes")
    array = np.asarray(vectors)
    if array.dtype.kind == "O" and array.ndim:  # a column of vectors, or numbers that are objects
        return _from_list(array.tolist())
    if array.dtype.kind in "USTO" and array.size:
        raise InputError(f"{str(array.flat[0])!r:.40} is a text, no vector; encode it first")
    _check_shape(array.dtype.kind, array.shape)
    return sp.csr_matrix(np.atleast_2d(array), dtype=np.float32)


def _from_list(vectors: Sequence[Any]) -> sp.csr_matrix:
    if not vectors:
        raise InputError("no vectors were given: the list is empty")
    if all(isinstance(number, int | float | np.number) for number in vectors):  # one vector, written out
        return _convert(np.asarray(vectors))
    rows = []
    for number, vector in enumerate(vectors):
        try:
            rows.append(_convert(vector))
        except InputError as error:
            raise InputError(f"vector {number}: {error}") from None
        if rows[-1].shape[1] != rows[0].shape[1]:
            raise InputError(
                f"vector {number} has {rows[-1].shape[1]} dimensions, vector 0 {rows[0].shape[1]}: "
                "encode all with the same model"
            )
    return sp.vstack(rows, format="csr")


def _check_shape(kind: str, shape: tuple[int, ...]) -> None:
    """Refuse what is no real numbers (``kind`` as of a numpy type) in rows."""
    if kind not in "fiub":
        raise InputError("vectors hold real numbers; give float32, or another type of float or integer")
    if len(shape) not in (1, 2):
        raise InputError(f"vectors have the shape (texts, vocabulary), not {tuple(shape)}")


def _from_tensor(tensor: torch.Tensor) -> sp.csr_matrix:
    import torch

    _check_shape("c" if tensor.is_complex() else "f", tuple(tensor.shape))
    if tensor.dim() == 1:
        tensor = tensor.unsqueeze(0)
    if tensor.layout is torch.sparse_csr:
        arrays = (tensor.values().float(), tensor.col_indices(), tensor.crow_indices())
        return sp.csr_matrix(tuple(array.cpu().numpy() for array in arrays), shape=tuple(tensor.shape))
    if tensor.layout not in (torch.strided, torch.sparse_coo):
        tensor = tensor.to_sparse_coo()
    if tensor.layout is torch.sparse_coo and tensor.sparse_dim() == 2:
        # Not coalesced first: for rows in order scipy's conversion is several times faster.
        rows, columns = tensor._indices().cpu().numpy()
        values = tensor._values().float().cpu().numpy()
        return sp.csr_matrix((values, (rows, columns)), shape=tuple(tensor.shape))
    return sp.csr_matrix(tensor.to_dense().float().cpu().numpy())


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


def silence_empty(matrix: sp.csr_matrix, texts: Sequence[str]) -> sp.csr_matrix:
    """Empty the vectors of texts that are empty or white space: there is nothing to find.

    A model gives them some active dims, as it gives any input, and almost every query would find them.

    Args:
        matrix: ``(texts, vocabulary)``.
        texts: What was encoded.

    Returns:
        The same shape; ``matrix`` itself where no text is empty.

    Example:
        >>> silence_empty(sp.csr_matrix(np.eye(2)), ["rain", " "]).toarray().tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    empty = np.array([not text.strip() for text in texts], dtype=bool)
    if not empty.any():
        return matrix
    matrix = matrix.copy()
    matrix.data[np.repeat(empty, np.diff(matrix.indptr))] = 0
    matrix.eliminate_zeros()
    return matrix


def keep_largest(matrix: sp.csr_matrix, most: int | None) -> sp.csr_matrix:
    """Keep the largest weights of each row; of equal ones those of lower columns, on every machine.

    Args:
        matrix: ``(texts, vocabulary)``, columns rising in each row.
        most: Weights that a row keeps, 1 or more; ``None`` keeps all.

    Returns:
        The same shape; ``matrix`` itself where no row has more.

    Raises:
        InputError: ``most`` is below 1.

    Example:
        >>> keep_largest(sp.csr_matrix([[0.5, 2.0, 0.5, 1.0]]), 3).toarray().tolist()
        [[0.5, 2.0, 0.0, 1.0]]
    """
    if most is None:
        return matrix
    if most < 1:
        raise InputError(f"max_active_dims is {most}; give at least 1, or none to keep all")
    counts = np.diff(matrix.indptr)
    if counts.max(initial=0) <= most:
        return matrix
    rows = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((-matrix.data, rows))  # stable, so that equal weights stay in order of columns
    ranks = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], counts)
    kept = np.sort(order[ranks < most])
    indptr = np.concatenate([[0], np.cumsum(np.minimum(counts, most))]).astype(matrix.indptr.dtype)
    return sp.csr_matrix((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)
