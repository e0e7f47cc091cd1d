"""One collection through one model, and through BM25."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from tqdm import tqdm
from typing_extensions import NotRequired, TypedDict

from st_l0.data import Collection, own_documents
from st_l0.errors import InputError
from st_l0.evaluation.bm25 import search_bm25
from st_l0.evaluation.metrics import Run, best, flops, mean_quality, quality_per_query
from st_l0.utils.inputs import as_texts

if TYPE_CHECKING:
    import scipy.sparse as sp

    from st_l0.index import Index
    from st_l0.utils.sparse import Vectors

logger = logging.getLogger(__name__)

_SEARCH_BATCH = 256


class Encoder(Protocol):
    """What an evaluation needs of a model; `st_l0.SparseEncoder` has it."""

    def encode_document(
        self, inputs: list[str], /, *, batch_size: int, show_progress_bar: bool, convert_to_scipy: bool
    ) -> Any:
        """Documents → CSR ``(documents, vocabulary)``."""

    def encode_query(self, inputs: list[str], /, *, convert_to_scipy: bool) -> Any:
        """Queries → CSR ``(queries, vocabulary)``."""


class EvaluationReport(TypedDict):
    """What `evaluate` measured: plain numbers, ready for JSON.

    ``model`` and ``bm25`` hold ``ndcg@10``, ``mrr@10``, ``recall@<k>``, ``without_hits`` (part of the queries
    for which nothing was found), from 0 to 1, ``index_seconds`` and ``search_ms_per_query``. ``model`` holds
    besides:

    - ``encode_query_ms``: a query, encoded with all the others in one call;
    - ``query_active_dims``: mean number of non-zero weights of a query;
    - ``document_active_dims`` and ``document_active_dims_p95``: mean and 95th percentile of the documents';
    - ``flops``: see `st_l0.evaluation.metrics.flops`;
    - ``encode_documents_seconds`` and ``documents_per_second``.

    What was not measured is left out: the encoding of documents if ``document_vectors`` or an ``index`` were
    given, ``index_seconds`` with an ``index``, and what needs vectors with an ``index`` alone.
    """

    collection: str
    documents: int
    queries: int
    bm25: NotRequired[dict[str, float]]
    model: dict[str, float]


class SystemResults(NamedTuple):
    """What a system, the model or BM25, found in a collection, query by query.

    The means of ``per_query`` are the numbers of the `EvaluationReport`.

    Attributes:
        run: Query id → document id → score.
        per_query: Query id → ``ndcg@10``, ``mrr@10`` and ``recall@<k>``, 0 to 1; see `quality_per_query`.
    """

    run: Run
    per_query: dict[str, dict[str, float]]


def evaluate(
    model: Encoder,
    collection: Collection,
    *,
    index: Index | None = None,
    document_vectors: Vectors | None = None,
    k: int = 100,
    batch_size: int = 32,
    bm25: bool = True,
    progress: bool = True,
    make_index: Callable[[], Index] | None = None,
    results: dict[str, SystemResults] | None = None,
) -> EvaluationReport:
    """Measure what a model finds in a collection, and what that costs.

    Where queries are documents themselves, the query's own document is no hit, as in BEIR's protocol; see
    `st_l0.data.own_documents`. A system that finds nothing for most queries is named in a warning.

    Args:
        model: Encodes the queries, and the documents unless they come in one of the next two.
        collection: What to search, and what should be found.
        index: Holds the collection's documents, and no others, already encoded by ``model``. If None, one is
            made.
        document_vectors: The documents as ``model`` encodes them, in the order of ``collection.corpus``,
            shape ``(documents, vocabulary)``.
        k: Documents to find for each query, at least 10; the depth of the recall.
        batch_size: Documents to encode at once.
        bm25: Measure BM25 too.
        progress: Show progress bars.
        make_index: Gives a new, empty index, called if there is no ``index``; if None, one in memory.
        results: Receives, under ``"model"`` and ``"bm25"``, what the report's numbers are the means of, for
            tests of significance and run files (`st_l0.evaluation.write_results`).

    Raises:
        InputError: the collection is empty or holds what is no text, ``k`` is below 10, or ``index`` or
            ``document_vectors`` are not those of the collection.

    Example:
        >>> from st_l0 import SparseEncoder
        >>> from st_l0.data import Collection, own_documents
        >>> corpus = {"a": "Rain falls from clouds.", "b": "An index lists words."}
        >>> collection = Collection("toy", corpus, {"q": "why does it rain?"}, {"q": {"a": 1}})
        >>> model = SparseEncoder.from_pretrained("models/st-l0-mini", device="cpu")
        >>> evaluate(model, collection, bm25=False, progress=False)["model"]["ndcg@10"]
        1.0
    """
    from st_l0.index import EmbeddedIndex
    from st_l0.utils.sparse import active_dims, as_csr, silence_empty

    vectors = None if document_vectors is None else as_csr(document_vectors)
    _check(collection, index, vectors, k)
    report = EvaluationReport(
        collection=collection.name,
        documents=len(collection.corpus),
        queries=len(collection.queries),
        model={},
    )
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    if bm25:  # first: it takes seconds, and complains at once if it is not installed
        found = search_bm25(collection.corpus, collection.queries, k, own=own, progress=progress)
        report["bm25"] = _measure("bm25", found.run, collection, k, results) | {
            "index_seconds": found.index_seconds,
            "search_ms_per_query": 1000 * found.search_seconds / len(collection.queries),
        }

    costs: dict[str, float] = {}
    if index is None:
        if vectors is None:
            start = time.perf_counter()
            documents = list(collection.corpus.values())
            vectors = as_csr(
                model.encode_document(
                    documents, batch_size=batch_size, show_progress_bar=progress, convert_to_scipy=True
                )
            )
            vectors = silence_empty(vectors, documents)
            costs["encode_documents_seconds"] = time.perf_counter() - start
            costs["documents_per_second"] = len(collection.corpus) / costs["encode_documents_seconds"]
        start = time.perf_counter()
        index = EmbeddedIndex() if make_index is None else make_index()
        index.add(list(collection.corpus), vectors)
        costs["index_seconds"] = time.perf_counter() - start

    texts = list(collection.queries.values())
    model.encode_query(texts[:1], convert_to_scipy=True)  # what a model prepares once is not a query's cost
    start = time.perf_counter()
    queries = as_csr(model.encode_query(texts, convert_to_scipy=True))
    costs["encode_query_ms"] = 1000 * (time.perf_counter() - start) / len(texts)
    costs["query_active_dims"] = float(active_dims(queries).mean())
    if vectors is not None:
        dims = active_dims(vectors)
        costs["document_active_dims"] = float(dims.mean())
        costs["document_active_dims_p95"] = float(np.percentile(dims, 95))
        costs["flops"] = flops(queries, vectors)

    run, seconds = _search(index, collection, queries, k, own, progress)
    costs["search_ms_per_query"] = 1000 * seconds / len(texts)
    report["model"] = _measure("model", run, collection, k, results) | costs
    return report


def _check(collection: Collection, index: Index | None, vectors: sp.csr_matrix | None, k: int) -> None:
    name, documents = collection.name, len(collection.corpus)
    if not documents or not collection.queries:
        raise InputError(f"collection {name}: no documents or no judged queries; give at least one of each")
    as_texts(collection.corpus.values(), f"collection {name}: document", collection.corpus)
    as_texts(collection.queries.values(), f"collection {name}: query", collection.queries)
    if k < 10:
        raise InputError(f"k is {k}, but nDCG@10 and MRR@10 need 10 documents; give at least 10")
    if index is not None and len(index) != documents:
        raise InputError(
            f"the index holds {len(index):,} documents, collection {name} {documents:,}; "
            "index exactly the collection's documents"
        )
    if vectors is not None and vectors.shape[0] != documents:
        raise InputError(
            f"{vectors.shape[0]:,} document vectors for the {documents:,} documents of collection {name}; "
            "give one a document, in order"
        )


def _measure(
    system: str, run: Run, collection: Collection, k: int, results: dict[str, SystemResults] | None
) -> dict[str, float]:
    """The means, and their parts into ``results``."""
    per_query = quality_per_query(collection.qrels, run, k)
    if results is not None:
        results[system] = SystemResults(run, per_query)
    without, queries = sum(not run[query] for query in collection.qrels), len(per_query)
    if without > queries / 2:
        logger.warning(
            "collection %s: %s found nothing for %d of %d queries; can it split their language into words?",
            collection.name, "BM25" if system == "bm25" else "the model", without, queries,
        )  # fmt: skip
    return mean_quality(per_query) | {"without_hits": without / queries}


def _search(
    index: Index, collection: Collection, queries: sp.csr_matrix, k: int, own: set[str], progress: bool
) -> tuple[dict[str, dict[str, float]], float]:
    """The run, and the seconds that the index took."""
    ids = list(collection.queries)
    run: dict[str, dict[str, float]] = {}
    seconds = 0.0
    with tqdm(total=len(ids), desc="Searching", unit="query", leave=False, disable=not progress) as bar:
        for first in range(0, len(ids), _SEARCH_BATCH):
            batch = ids[first : first + _SEARCH_BATCH]
            start = time.perf_counter()
            found = index.search(queries[first : first + _SEARCH_BATCH], k + bool(own))
            seconds += time.perf_counter() - start
            for query, hits in zip(batch, found, strict=True):
                run[query] = best(hits.as_run(), k, without=query if query in own else None)
                stranger = next((hit for hit in run[query] if hit not in collection.corpus), None)
                if stranger is not None:
                    raise InputError(
                        f"the index holds document {stranger!r:.40}, which is not in collection "
                        f"{collection.name}; index exactly the collection's documents"
                    )
            bar.update(len(batch))
    return run, seconds
