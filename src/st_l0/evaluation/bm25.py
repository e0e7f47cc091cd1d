"""BM25, the baseline that every report shows beside the model."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from st_l0.data.words import K1, B, WordSplitter
from st_l0.errors import require
from st_l0.utils.inputs import as_texts


class BM25Result(NamedTuple):
    """What BM25 found, and how long it took.

    Attributes:
        run: Query id → document id → score. Where fewer than ``k`` documents share a word with the query,
            others fill up at score 0, as bm25s returns them.
        index_seconds: Splitting and indexing the documents.
        search_seconds: Splitting and searching all queries.
    """

    run: dict[str, dict[str, float]]
    index_seconds: float
    search_seconds: float


def search_bm25(
    corpus: Mapping[str, str], queries: Mapping[str, str], k: int = 100, *, progress: bool = False
) -> BM25Result:
    """Search with BM25: Lucene's variant, k1 1.2, b 0.75, English stop words and Snowball stemmer.

    Args:
        corpus: Document id → text.
        queries: Query id → text.
        k: Documents to find for each query, at most. One that shares no word with the query is not found.
        progress: Show progress bars.

    Raises:
        InputError: one of the texts is no string.
        MissingExtraError: the extra ``eval`` is not installed.

    Source: Lù, 2024, https://arxiv.org/abs/2407.03618 (bm25s)
    """
    bm25s = require("bm25s", "eval")
    splitter = WordSplitter()

    def split(texts: Mapping[str, str], noun: str) -> Any:
        return splitter.tokenized(as_texts(texts.values(), noun, texts), progress=progress)

    start = time.perf_counter()
    documents = split(corpus, "document")
    if not queries or not documents.vocab:  # bm25s cannot index a corpus without words
        return BM25Result({query: {} for query in queries}, time.perf_counter() - start, 0.0)
    engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
    engine.index(documents, show_progress=progress)
    indexed = time.perf_counter()
    rows, scores = engine.retrieve(
        split(queries, "query"), k=min(k, len(corpus)), show_progress=progress, backend_selection="numpy"
    )
    searched = time.perf_counter()

    ids = list(corpus)
    run = {
        query: {ids[row]: score for row, score in zip(found, points, strict=True) if score > 0}
        for query, found, points in zip(queries, rows.tolist(), scores.tolist(), strict=True)
    }
    return BM25Result(run, indexed - start, searched - indexed)
