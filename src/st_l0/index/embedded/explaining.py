"""Why a document has its score: the parts of it, as the index stores them."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

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
