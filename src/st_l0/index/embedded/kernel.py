"""The inner loop of exact search: add up postings, pick the best. Plain arrays in, plain arrays out.

Python's lock is not held while either walks its arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

try:  # Private, and the fastest scatter-add that is installed anyway: twice the speed of numpy's.
    from scipy.sparse import _sparsetools
except ImportError:
    _sparsetools = None
csc_matvec: Callable[..., Any] | None = getattr(_sparsetools, "csc_matvec", None)

_GROUPS = 1024  # at least so many, of which numpy takes the maxima at memory speed: they stay in the cache


def accumulate(
    indptr: NDArray[np.integer[Any]],
    rows: NDArray[np.int32],
    weights: NDArray[np.float32],
    tokens: NDArray[np.integer[Any]],
    token_weights: NDArray[np.float32],
    scores: NDArray[np.float32],
) -> None:
    """Add each token's postings, times its weight, to ``scores`` in place; the last token comes first.

    Args:
        indptr: The postings of token ``t`` lie in ``indptr[t]:indptr[t + 1]``; shape ``(vocabulary + 1,)``,
            below 2**31.
        rows: Document of each posting, at most once a token, shape ``(postings,)``.
        weights: Weight of each posting, shape ``(postings,)``.
        tokens: The query's token ids, ascending, shape ``(tokens,)``.
        token_weights: Their weights, shape ``(tokens,)``.
        scores: One sum a document, contiguous, shape ``(documents,)``.
    """
    if not len(tokens):
        return
    spans = np.empty((len(tokens), 2), dtype=np.int32)
    spans[::-1, 0] = indptr[tokens]
    spans[::-1, 1] = indptr[tokens + 1]
    backwards = token_weights[::-1]
    if csc_matvec is None:
        for (start, stop), weight in zip(spans.tolist(), backwards, strict=True):
            np.add.at(scores, rows[start:stop], weights[start:stop] * weight)
        return
    # One call for all tokens, so that Python and its lock are needed once a query: between two tokens stands
    # a column that ends before it starts, hence is empty.
    columns = np.zeros(2 * len(tokens) - 1, dtype=np.float32)
    columns[::2] = backwards
    csc_matvec(len(scores), len(columns), spans.ravel(), rows, weights, columns, scores)


def accumulate_list(
    rows: NDArray[np.integer[Any]], values: NDArray[np.float32], weight: float, scores: NDArray[np.float32]
) -> None:
    """Add one list of postings, times a weight, to ``scores`` in place; shapes as for `accumulate`."""
    column = np.array([weight], dtype=np.float32)
    if csc_matvec is None:
        np.add.at(scores, rows, values * column)
        return
    csc_matvec(len(scores), 1, np.array([0, len(rows)], dtype=rows.dtype), rows, values, column, scores)


def top_k(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Positions of the ``k`` largest scores above zero, best first; equal scores in order of position.

    Args:
        scores: Shape ``(documents,)``, at most 2**32.
        k: At least 1.

    Returns:
        Shape ``(hits,)``, ``hits <= k``.
    """
    floor = _floor(scores, k)
    found = np.flatnonzero(scores >= floor if floor > 0 else scores > 0)
    # The bits of positive floats are ordered as the floats are. Inverted and put above the position they make
    # one integer, whose order is that of the hits, ties included.
    keys = (~scores[found].view(np.int32)).astype(np.int64) << 32 | found
    if len(keys) > 2 * k:
        keys.partition(k)
    keys.sort()
    positions: NDArray[np.int64] = keys[:k] & 0xFFFFFFFF
    return positions


def _floor(scores: NDArray[np.float32], k: int) -> float:
    """A score that at least ``k`` documents reach: the k-th largest of the maxima of twice as many groups.

    It costs one pass at memory speed and leaves few documents for the exact selection.
    """
    width = max(2 * k, _GROUPS)
    height = len(scores) // width
    if height < 2:
        return 0.0
    maxima = scores[: height * width].reshape(height, width).max(axis=0)
    maxima.partition(width - k)
    return float(maxima[width - k])
