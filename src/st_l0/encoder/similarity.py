"""Scores of pairs of vectors: in the forms that stock takes, and faster for many pairs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from st_l0.errors import InputError
from st_l0.utils.sparse import as_csr, as_torch

_FEW = 64  # documents below which the conversion costs more than it saves
_ROWS = 64  # queries scored at once: bounds the sparse product that precedes the dense rows


def as_pair(first: Any, second: Any) -> tuple[Tensor, Tensor]:
    """The two arguments of a similarity as tensors that stock compares with each other.

    Raises:
        InputError: One of the two is no vectors, or their lengths differ.
    """
    one, other = as_tensor(first), as_tensor(second)
    for name, tensor in (("embeddings1", one), ("embeddings2", other)):
        if tensor.dim() not in (1, 2):
            raise InputError(
                f"{name} has the shape {tuple(tensor.shape)}: give one vector, or a row for each"
            )
    if one.shape[-1] != other.shape[-1]:
        raise InputError(
            f"embeddings1 has {one.shape[-1]} dimensions, embeddings2 {other.shape[-1]}: "
            "encode both with the same model"
        )
    if one.dtype != other.dtype:
        dense = one.layout is other.layout is torch.strided
        kind = torch.promote_types(one.dtype, other.dtype) if dense else torch.float32
        one, other = one.to(kind), other.to(kind)
    if not isinstance(first, Tensor):  # it came from the memory of the host
        one = one.to(other.device)
    return one, (other if isinstance(second, Tensor) else other.to(one.device))


def as_equally_many(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs of rows: one vector goes with each of the others, which torch does for dense tensors alone.

    Raises:
        InputError: There are more rows on one side.
    """
    rows = [1 if tensor.dim() == 1 else len(tensor) for tensor in (first, second)]
    if first.shape == second.shape:
        return first, second
    if first.layout is second.layout is torch.strided and 1 in rows:
        return torch.atleast_2d(first), torch.atleast_2d(second)
    if rows[0] != rows[1] and 1 not in rows:
        raise InputError(f"embeddings1 holds {rows[0]} vectors, embeddings2 {rows[1]}: give as many of each")
    return _repeated(first, rows[1]), _repeated(second, rows[0])


def _repeated(vectors: Tensor, times: int) -> Tensor:
    """One row as many; several as they are."""
    rows = vectors.unsqueeze(0) if vectors.dim() == 1 else vectors
    if len(rows) != 1:
        return rows
    first = torch.zeros(times, dtype=torch.int64, device=rows.device)
    many: Tensor = rows.to_sparse_coo().index_select(0, first)
    return many


def as_tensor(vectors: Any) -> Tensor:
    """Vectors in any form as a tensor of floats that stock takes: dense or COO.

    Raises:
        InputError: These are no vectors.
    """
    if isinstance(vectors, list) and all(isinstance(vector, Tensor) for vector in vectors):
        alike = len({(vector.layout, vector.shape) for vector in vectors}) == 1
        vectors = torch.stack(vectors) if alike else vectors
    if isinstance(vectors, np.ndarray) and vectors.dtype.kind in "fiub" and vectors.ndim:
        vectors = torch.from_numpy(np.require(vectors, requirements=["C", "W"]))
    if not isinstance(vectors, Tensor):
        return as_torch(as_csr(vectors))
    if vectors.layout not in (torch.strided, torch.sparse_coo):  # of which stock cannot compare all pairs
        vectors = vectors.to_sparse_coo()
    tensor: Tensor = vectors if vectors.is_floating_point() else vectors.float()
    return tensor


def has_fast_scores(first: object, second: object) -> bool:
    """Whether `dot_scores` takes these and is the faster way.

    They must be sparse, two-dimensional, of single precision, without a gradient and on the CPU.
    """
    if not (isinstance(first, Tensor) and isinstance(second, Tensor)):
        return False
    for one in (first, second):
        if one.layout is not torch.sparse_coo or one.dim() != 2 or one.dtype != torch.float32:
            return False
        if one.device.type != "cpu" or one.requires_grad:
            return False
    return first.shape[1] == second.shape[1] and len(second) >= _FEW


def dot_scores(queries: Tensor, documents: Tensor) -> Tensor:
    """Dot products of all pairs of sparse vectors; the same additions in the same order as ``torch.mm``.

    torch sorts all entries of the documents and keeps 20 bytes for each score that is not zero, before it
    makes the matrix; here the entries are counted into columns, and few rows of scores are made at once.

    Args:
        queries: Shape ``(queries, vocabulary)``; see `has_fast_scores`.
        documents: Shape ``(documents, vocabulary)``.

    Returns:
        Dense, shape ``(queries, documents)``.

    Raises:
        InputError: A weight is NaN or infinite.
    """
    rows, columns = as_csr(queries), as_csr(documents).T.tocsr()
    scores = torch.zeros(len(queries), len(documents))
    for start in range(0, len(queries), _ROWS):
        block = scores[start : start + _ROWS].numpy()
        (rows[start : start + _ROWS] @ columns).toarray(out=block)
    return scores
