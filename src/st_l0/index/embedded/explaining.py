"""Why a document has its score, and what else the index stores of documents and tokens."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.bm25 import Weighed
from st_l0.index.embedded.snapshot import Snapshot


def explain(
    snapshot: Snapshot, position: int, query: sp.csr_matrix, words: Weighed
) -> dict[int | str, tuple[float, float]]:
    """The tokens and words that a query and the document at a position share, largest product first.

    Args:
        snapshot: Where to look.
        position: Of the document.
        query: Shape ``(1, vocabulary_size)``.
        words: Those of the query, as `Statistics.weigh` gave them.
    """
    ((number, _, (row,)),) = snapshot.split(np.array([position]))
    vectors = snapshot.segments[number].segment.vectors
    vectors.prove_lists(query.indices)
    shared: dict[int | str, tuple[float, float]] = {}
    for token, weight in zip(query.indices.tolist(), query.data.tolist(), strict=True):
        start, stop = vectors.indptr[token : token + 2].tolist()
        place = start + int(np.searchsorted(vectors.rows[start:stop], row))
        if place < stop and vectors.rows[place] == row:
            shared[token] = (weight, float(vectors.values[place]))
    for word, weight in words:
        part = snapshot.statistics.part(word, position)
        if part:
            shared[word.text] = (weight, part)
    return dict(sorted(shared.items(), key=lambda item: -item[1][0] * item[1][1]))


def stored_vector(snapshot: Snapshot, position: int) -> sp.csr_matrix:
    """The vector of the document at a position, shape ``(1, vocabulary_size)``; reads all of its segment."""
    ((number, _, (row,)),) = snapshot.split(np.array([position]))
    vectors = snapshot.segments[number].segment.vectors
    vectors.prove()
    places = np.flatnonzero(vectors.rows == row)  # ascending, and so are the tokens
    tokens = np.searchsorted(vectors.indptr, places, side="right") - 1
    ends = np.array([0, len(places)])
    return sp.csr_matrix((vectors.values[places], tokens, ends), shape=(1, len(vectors.indptr) - 1))


def document_frequencies(snapshot: Snapshot, tokens: NDArray[np.integer]) -> NDArray[np.int64]:
    """How many documents have each of some tokens, shape ``(tokens,)``."""
    counts = np.zeros(len(tokens), dtype=np.int64)
    for live in snapshot.segments:
        vectors = live.segment.vectors
        starts, stops = vectors.indptr[tokens], vectors.indptr[tokens + 1]
        if live.deleted is None:
            counts += stops - starts
            continue
        vectors.prove_lists(tokens)
        kept = live.kept()
        lists = (vectors.rows[start:stop] for start, stop in zip(starts, stops, strict=True))
        counts += np.array([np.count_nonzero(kept[rows]) for rows in lists], dtype=np.int64)
    return counts
