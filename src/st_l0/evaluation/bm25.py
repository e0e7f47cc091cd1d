"""BM25, the baseline that every report shows beside the model."""

from __future__ import annotations

import time
from collections.abc import Mapping, Set
from typing import NamedTuple

from st_l0.data import own_documents
from st_l0.evaluation.metrics import best
from st_l0.utils.inputs import as_texts
from st_l0.utils.words import K1, Analyzer, B


class BM25Result(NamedTuple):
    """What BM25 found, and how long it took.

    Attributes:
        run: Query id → document id → score above 0, best first.
        index_seconds: Splitting and indexing the documents.
        search_seconds: Splitting and searching all queries.
    """

    run: dict[str, dict[str, float]]
    index_seconds: float
    search_seconds: float


def search_bm25(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    k: int = 100,
    *,
    own: Set[str] | None = None,
    progress: bool = False,
) -> BM25Result:
    """Search with BM25: Lucene's variant, k1 1.2, b 0.75, words as the English `st_l0.utils.words.Analyzer`.

    Args:
        corpus: Document id → text.
        queries: Query id → text.
        k: Documents to find for each query, at most. One that shares no word with the query is not found.
        own: Queries whose document of the same id is no hit; by default what `own_documents` gives for
            texts without judgements.
        progress: Show progress bars.

    Raises:
        InputError: one of the texts is no string.

    Source: Lù, 2024, https://arxiv.org/abs/2407.03618 (bm25s)
    """
    import bm25s

    analyze = Analyzer()

    start = time.perf_counter()
    texts = as_texts(corpus.values(), "document", corpus)
    vocabulary: dict[str, int] = {}
    documents = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        for words in analyze(texts, progress=progress)
    ]
    if not queries or not vocabulary:  # bm25s cannot index a corpus without words
        return BM25Result({query: {} for query in queries}, time.perf_counter() - start, 0.0)
    engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
    engine.index((documents, vocabulary), show_progress=progress)
    indexed = time.perf_counter()
    own = own_documents(corpus, queries) if own is None else own
    rows, scores = engine.retrieve(
        analyze(as_texts(queries.values(), "query", queries)),
        k=min(k + bool(own), len(corpus)),
        show_progress=progress,
        backend_selection="numpy",
    )
    searched = time.perf_counter()

    ids = list(corpus)
    run = {}
    for query, places, points in zip(queries, rows.tolist(), scores.tolist(), strict=True):
        found = {ids[place]: score for place, score in zip(places, points, strict=True) if score > 0}
        run[query] = best(found, k, without=query if query in own else None)
    return BM25Result(run, indexed - start, searched - indexed)
