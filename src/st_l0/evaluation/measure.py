"""One collection through one model, and through BM25."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from typing_extensions import NotRequired, TypedDict

from st_l0.data import Collection, own_documents
from st_l0.errors import InputError
from st_l0.evaluation.bm25 import search_bm25, variant
from st_l0.evaluation.costs import Activity
from st_l0.evaluation.metrics import Run, best, flops, mean_quality, quality_per_query
from st_l0.evaluation.significance import randomisation_test
from st_l0.index.calibration import weigh_by_documents
from st_l0.index.protocol import CountedTokens, as_weight
from st_l0.utils.inputs import as_texts
from st_l0.utils.progress import show_progress

if TYPE_CHECKING:
    import scipy.sparse as sp

    from st_l0.index import Index
    from st_l0.utils.sparse import Vectors

logger = logging.getLogger(__name__)

_SEARCH_BATCH = 256

SYSTEMS = ("bm25", "model", "model_bm25")


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

    ``bm25`` holds ``word_flops`` besides, which is for words what ``flops`` is for tokens. ``model_bm25`` is
    the sum of both scores; it holds ``bm25_weight``, how much BM25 counts in it, both costs, and ``p_value``,
    that of its difference in nDCG@10 to ``model`` (see `st_l0.evaluation.significance.randomisation_test`).

    What was not measured is left out: the encoding of documents if ``document_vectors`` or an ``index`` were
    given, ``index_seconds`` with an ``index``, and with an ``index`` alone the 95th percentile, of OpenSearch
    the other costs of documents too.
    ``bm25_variant`` says which BM25 it is, and ``own_documents`` is the number of queries that are documents
    themselves, which are no hits.
    """

    collection: str
    documents: int
    queries: int
    own_documents: NotRequired[int]
    bm25_variant: NotRequired[str]
    bm25: NotRequired[dict[str, float]]
    model: dict[str, float]
    model_bm25: NotRequired[dict[str, float]]


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
    bm25: bool | str = True,
    bm25_weight: float | Literal["auto"] = "auto",
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
        bm25: Measure BM25 too, and the sum of both scores, which is searched in one index: the language of
            the words, True for English. A given ``index`` without words is measured without the sum.
        bm25_weight: How much BM25 counts in the sum. "auto": what the index, else the model names, else what
            `st_l0.index.calibration.weigh_by_spread` finds without labels.
        progress: Show progress bars.
        make_index: Gives a new, empty index, called if there is no ``index``; if None, one in memory.
        results: Receives, under the names of the systems in the report, what its numbers are the means of,
            for tests of significance and run files (`st_l0.evaluation.write_results`).

    Raises:
        InputError: the collection is empty or holds what is no text, ``k`` is below 10, ``index`` or
            ``document_vectors`` are not those of the collection, or ``bm25`` is no language.

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
    results = {} if results is None else results
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    report["own_documents"] = len(own)
    language = "english" if bm25 is True else bm25 or None
    word_flops = 0.0
    if language is not None:
        found = search_bm25(
            collection.corpus, collection.queries, k, language=language, own=own, progress=progress
        )
        word_flops = found.flops
        report["bm25_variant"] = variant(language)
        report["bm25"] = _measure("bm25", found.run, collection, k, results) | {
            "word_flops": word_flops,
            "index_seconds": found.index_seconds,
            "search_ms_per_query": 1000 * found.search_seconds / len(collection.queries),
        }

    costs: dict[str, float] = {}
    if index is None:
        documents = list(collection.corpus.values())
        if vectors is None:
            start = time.perf_counter()
            vectors = as_csr(
                model.encode_document(
                    documents, batch_size=batch_size, show_progress_bar=progress, convert_to_scipy=True
                )
            )
            vectors = silence_empty(vectors, documents)
            costs["encode_documents_seconds"] = time.perf_counter() - start
            costs["documents_per_second"] = len(collection.corpus) / costs["encode_documents_seconds"]
        start = time.perf_counter()
        index = EmbeddedIndex(bm25=language) if make_index is None else make_index()
        index.add(list(collection.corpus), vectors, documents if index.bm25 else None)
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

    search = partial(search_collection, index, collection, queries, k, own, progress)
    run, seconds = search(0.0)
    if vectors is None and isinstance(index, CountedTokens) and index.vocabulary_size is not None:
        shares = index.document_frequencies(np.arange(index.vocabulary_size)) / len(index)
        costs["document_active_dims"] = float(shares.sum())
        seen = Activity()
        seen.add(queries)
        costs["flops"] = float(seen.shares @ shares)
    costs["search_ms_per_query"] = 1000 * seconds / len(texts)
    report["model"] = _measure("model", run, collection, k, results) | costs
    if language is not None and index.bm25 is not None:
        weight = _weight(index, model, collection) if bm25_weight == "auto" else as_weight(bm25_weight)
        if weight is None:
            return report
        run, seconds = search(weight)
        measured = _measure("model_bm25", run, collection, k, results)
        report["model_bm25"] = measured | {
            "bm25_weight": weight,
            "p_value": _p_value(results["model"], results["model_bm25"]),
            **{key: costs[key] for key in ("flops",) if key in costs},
            "word_flops": word_flops,
            "search_ms_per_query": 1000 * seconds / len(texts),
        }
    return report


def _p_value(one: SystemResults, other: SystemResults) -> float:
    """Of the difference in nDCG@10, paired query by query."""
    pairs = ((values, other.per_query[query]) for query, values in one.per_query.items())
    return randomisation_test([[left["ndcg@10"] - right["ndcg@10"] for left, right in pairs]])


def _weight(index: Index, model: Encoder, collection: Collection) -> float | None:
    """How much BM25 counts where nobody said it; None, and a warning, where that cannot be found."""
    named = index.bm25_weight or getattr(model, "bm25_weight", None)
    if named is not None:
        return float(named)
    try:
        return weigh_by_documents(index, model, collection.documents)
    except InputError as error:
        logger.warning("collection %s: model and BM25 are not added up: %s", collection.name, error)
        return None


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
    system: str, run: Run, collection: Collection, k: int, results: dict[str, SystemResults]
) -> dict[str, float]:
    """The means, and their parts into ``results``."""
    per_query = quality_per_query(collection.qrels, run, k)
    results[system] = SystemResults(run, per_query)
    without, queries = sum(not run[query] for query in collection.qrels), len(per_query)
    if without > queries / 2 and system != "model_bm25":  # which says nothing new
        logger.warning(
            "collection %s: %s found nothing for %d of %d queries; can it split their language into words?",
            collection.name, "BM25" if system == "bm25" else "the model", without, queries,
        )  # fmt: skip
    return mean_quality(per_query) | {"without_hits": without / queries}


def search_collection(
    index: Index,
    collection: Collection,
    queries: sp.csr_matrix,
    k: int,
    own: set[str],
    progress: bool,
    weight: float,
) -> tuple[dict[str, dict[str, float]], float]:
    """The run of a collection's queries, with a weight of BM25, and the seconds that the index took.

    Raises:
        InputError: The index found a document that is not in the collection.
    """
    ids, texts = list(collection.queries), list(collection.queries.values())
    words: dict[str, Any] = {}
    run: dict[str, dict[str, float]] = {}
    seconds = 0.0
    with show_progress("searching", len(ids), unit="queries", shown=progress, delay=1) as bar:
        for first in range(0, len(ids), _SEARCH_BATCH):
            batch = ids[first : first + _SEARCH_BATCH]
            part = slice(first, first + _SEARCH_BATCH)
            if weight:
                words = {"texts": texts[part], "bm25": weight}
            start = time.perf_counter()
            found = index.search(queries[part], k + bool(own), **words)
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
