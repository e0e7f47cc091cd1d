"""Scores of all pairs of sparse vectors, for callers that need the whole matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from st_l0.utils.sparse import as_csr

_FEW = 64  # documents below which the conversion costs more than it saves
_ROWS = 64  # queries scored at once: bounds the sparse product that precedes the dense rows


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
