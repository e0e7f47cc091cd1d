"""BM25, the baseline that every report shows beside the model."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Set
from typing import NamedTuple

import numpy as np

from st_l0.data import own_documents
from st_l0.evaluation.metrics import best
from st_l0.utils.inputs import as_texts
from st_l0.utils.terminal import is_terminal
from st_l0.utils.words import K1, Analyzer, B


def variant(language: str) -> str:
    """What BM25 is here, for people: its figures differ between tools.

    Example:
        >>> variant("english")
        "Lucene's, k1 1.2, b 0.75, english stop words, english stemmer"
    """
    return f"Lucene's, k1 {K1:g}, b {B:g}, {Analyzer(language).description}"


class BM25Result(NamedTuple):
    """What BM25 found, and how long it took.

    Attributes:
        run: Query id → document id → score above 0, best first.
        flops: Mean number of distinct words that a query and a document have in common: what a match costs.
        index_seconds: Splitting and indexing the documents.
        search_seconds: Splitting and searching all queries.
    """

    run: dict[str, dict[str, float]]
    flops: float
    index_seconds: float
    search_seconds: float


def search_bm25(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    k: int = 100,
    *,
    language: str = "english",
    own: Set[str] | None = None,
    progress: bool = False,
) -> BM25Result:
    """Search with BM25: Lucene's variant, k1 1.2, b 0.75, words as `st_l0.utils.words.Analyzer` has them.

    Args:
        corpus: Document id → text.
        queries: Query id → text.
        k: Documents to find for each query, at most. One that shares no word with the query is not found.
        language: Of the words.
        own: Queries whose document of the same id is no hit; by default what `own_documents` gives for
            texts without judgements.
        progress: Show progress bars.

    Raises:
        InputError: one of the texts is no string, or the language is unknown.

    Source: Lù, 2024, https://arxiv.org/abs/2407.03618 (bm25s)
    """
    import bm25s

    analyze = Analyzer(language)

    start = time.perf_counter()
    texts = as_texts(corpus.values(), "document", corpus)
    vocabulary: dict[str, int] = {}
    documents = [
        [vocabulary.setdefault(word, len(vocabulary)) for word in words]
        for words in analyze(texts, progress=progress)
    ]
    if not queries or not vocabulary:  # bm25s cannot index a corpus without words
        return BM25Result({query: {} for query in queries}, 0.0, time.perf_counter() - start, 0.0)
    engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
    bars = progress and is_terminal(sys.stderr)  # bm25s asks nobody
    engine.index((documents, vocabulary), show_progress=bars)
    indexed = time.perf_counter()
    own = own_documents(corpus, queries) if own is None else own
    words = analyze(as_texts(queries.values(), "query", queries))
    rows, scores = engine.retrieve(
        words,
        k=min(k + bool(own), len(corpus)),
        show_progress=bars,
        backend_selection="numpy",
    )
    searched = time.perf_counter()

    ids = list(corpus)
    run = {}
    for query, places, points in zip(queries, rows.tolist(), scores.tolist(), strict=True):
        found = {ids[place]: score for place, score in zip(places, points, strict=True) if score > 0}
        run[query] = best(found, k, without=query if query in own else None)
    frequencies = np.zeros(len(vocabulary), dtype=np.int64)
    for document in documents:
        frequencies[list(set(document))] += 1
    matches = sum(frequencies[vocabulary[word]] for row in words for word in {*row} & vocabulary.keys())
    cost = float(matches / len(queries) / len(corpus))
    return BM25Result(run, cost, indexed - start, searched - indexed)
