"""Documents as new segments in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from st_l0.index.embedded import merging
from st_l0.index.embedded.segment import LiveSegment, Segment
from st_l0.index.protocol import Id


def new_segments(
    ids: Sequence[Id],
    matrix: sp.csr_matrix,
    texts: Sequence[str | None] | None = None,
    words: Sequence[Sequence[str]] | None = None,
) -> Iterator[LiveSegment]:
    """Checked documents as segments in memory, each small enough for int32 positions."""
    counts = np.diff(matrix.indptr).astype(np.int64) + 1
    if words is not None:  # at most so many postings, and bytes of words
        counts += np.fromiter((len(row) + 4 * sum(map(len, row)) for row in words), np.int64, len(words))
    sizes = np.cumsum(counts)
    start, before = 0, 0
    while start < len(ids):
        stop = max(int(np.searchsorted(sizes, before + merging.MAX_SIZE, side="right")), start + 1)
        yield LiveSegment(
            Segment.build(
                ids[start:stop],
                _rows(matrix, start, stop),
                None if texts is None else texts[start:stop],
                None if words is None else words[start:stop],
            )
        )
        start, before = stop, int(sizes[stop - 1])


def _rows(matrix: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Some rows, without copying them."""
    first, last = matrix.indptr[[start, stop]].tolist()
    indptr = matrix.indptr[start : stop + 1] - first
    arrays = (matrix.data[first:last], matrix.indices[first:last], indptr)
    return sp.csr_matrix(arrays, shape=(stop - start, matrix.shape[1]))
