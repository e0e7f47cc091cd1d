"""A batch of queries against one snapshot of an index, in several threads where that pays."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.bm25 import Weighed
from st_l0.index.embedded.kernel import accumulate, accumulate_list, top_k
from st_l0.index.embedded.snapshot import Snapshot

Found: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]

_QUERIES = 16  # that many at a time go to a thread
_ROWS = 1 << 15  # per thread: with fewer rows the threads wait for Python's lock longer than they walk


def find(
    snapshot: Snapshot,
    queries: sp.csr_matrix,
    k: int,
    visible: NDArray[np.float32] | None,
    words: Sequence[Weighed] | None = None,
) -> list[Found]:
    """The positions and scores of each query's hits, best first.

    A large batch uses as many threads as torch does, where the program has loaded it; else as many as
    ``OMP_NUM_THREADS`` says, or as there are cores to use; fewer for a small index. Each query is one
    thread's work, so the result does not depend on their number.

    Args:
        snapshot: Where to search.
        queries: Shape ``(queries, vocabulary_size)``, sorted.
        k: Hits a query.
        visible: 1 for positions that may be returned and 0 for others, shape ``(rows,)``; None if all may.
        words: Those of each query, if they count: what `Statistics.weigh` gave.
    """
    starts = range(0, queries.shape[0], _QUERIES)
    threads = min(_threads(), len(starts), int(snapshot.bases[-1]) // _ROWS)

    def work(start: int) -> list[Found]:
        with snapshot.sums() as scores:
            stop = min(start + _QUERIES, queries.shape[0])
            return [
                _search(snapshot, queries, row, k, visible, () if words is None else words[row], scores)
                for row in range(start, stop)
            ]

    if threads < 2:
        groups = list(map(work, starts))
    else:
        with ThreadPoolExecutor(threads, "st_l0-search") as pool:
            groups = list(pool.map(work, starts))
    return [found for group in groups for found in group]


def _threads() -> int:
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    given = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()  # one number a level of nesting
    if given.isdecimal() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _search(
    snapshot: Snapshot,
    queries: sp.csr_matrix,
    row: int,
    k: int,
    visible: NDArray[np.float32] | None,
    words: Weighed,
    scores: NDArray[np.float32],
) -> Found:
    """One query; what ``scores`` holds is overwritten."""
    start, stop = queries.indptr[row : row + 2].tolist()
    tokens, weights = queries.indices[start:stop], queries.data[start:stop]
    scores.fill(0)
    base = 0
    for live in snapshot.segments:
        segment, vectors = live.segment, live.segment.vectors
        view = scores[base : base + len(segment)]
        vectors.prove_lists(tokens)
        accumulate(vectors.indptr, vectors.rows, vectors.values, tokens, weights, view)
        base += len(segment)
    for word, weight in words:
        accumulate_list(*snapshot.statistics.postings(word), weight, scores)
    if visible is not None:
        scores *= visible  # several times faster than assigning zeros through a mask
    positions = top_k(scores, k)
    return positions, scores[positions]
