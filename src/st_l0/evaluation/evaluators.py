"""The evaluators of sentence-transformers, with an index in place of the dense score matrix."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sentence_transformers.sparse_encoder.evaluation import (
    SparseInformationRetrievalEvaluator,
    SparseNanoBEIREvaluator,
)
from sentence_transformers.util import dot_score
from torch import Tensor

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex, Index
from st_l0.utils.inputs import as_texts
from st_l0.utils.progress import track
from st_l0.utils.sparse import as_csr

_logger = logging.getLogger(__name__)


class IndexInformationRetrievalEvaluator(SparseInformationRetrievalEvaluator):
    """Stock's `SparseInformationRetrievalEvaluator`, faster: documents are searched in an index.

    Arguments (but for one more), metrics, their names and their values are stock's, and so are the files it
    writes: use it where stock's is used, as ``evaluator`` of a trainer or on its own. No ``(queries,
    documents)`` matrix of scores is made; what it holds at a time is one chunk of ``corpus_chunk_size``
    documents.

    Equal scores are ordered as stock orders them, by ascending document id, also at the depth where the
    ranking is cut. Where fewer documents than that share a token with the query, the others follow at score
    0, as in stock.

    What an index cannot score is left to stock's own computation: ``score_functions`` other than the dot
    product, a model with another similarity, and ``corpus_embeddings`` that are given.

    Args:
        *arguments: Stock's.
        make_index: Gives a new, empty index, by default in memory; called once a chunk. The order of equal
            scores is stock's where the index gives them in the order of addition.
        **options: Stock's.

    Raises:
        InputError: one of the texts is no string; or, later, a weight is negative, or not finite: models with
            an MLM head have none such.

    Example:
        >>> evaluator = IndexInformationRetrievalEvaluator(
        ...     queries={"q": "sparse retrieval"},
        ...     corpus={"d1": "an inverted index for sparse retrieval", "d2": "rain"},
        ...     relevant_docs={"q": {"d1"}},
        ... )
        >>> evaluator(model)["dot_ndcg@10"]  # doctest: +SKIP
        1.0
    """

    def __init__(
        self, *arguments: Any, make_index: Callable[[], Index] = EmbeddedIndex, **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self.make_index = make_index
        as_texts(self.queries, "query", self.queries_ids)
        as_texts(self.corpus, "document", self.corpus_ids)

    @property
    def description(self) -> str:
        """What model cards call this measurement: the name of stock's, because it is the same."""
        return "Sparse Information Retrieval"

    def compute_all_metrics(
        self,
        model: Any,
        corpus_model: Any = None,
        corpus_embeddings: Tensor | None = None,
        output_path: str | None = None,
    ) -> Any:
        """Search and measure; arguments and result as in sentence-transformers."""
        functions = self.score_functions or {}
        if corpus_embeddings is not None or not all(_is_dot(one, model) for one in functions.values()):
            return super().compute_all_metrics(model, corpus_model, corpus_embeddings, output_path)
        rankings = list(self._search(model, model if corpus_model is None else corpus_model))
        if self.write_predictions and output_path is not None:
            for name in functions:
                self._write_predictions(Path(output_path), name, rankings)
        _logger.info("Queries: %d, corpus: %d", len(self.queries), len(self.corpus))
        measured = self.compute_metrics(cast(Any, rankings))
        log_scores: Any = self.output_scores
        for name in self.score_function_names:
            _logger.info("Score-Function: %s", name)
            log_scores(measured)
        return dict.fromkeys(functions, measured)

    def _search(self, model: Any, corpus_model: Any) -> Iterator[list[dict[str, Any]]]:
        """The ranking of each query, as deep as the deepest metric looks."""
        size = len(self.corpus)
        depths = (
            self.mrr_at_k, self.ndcg_at_k, self.accuracy_at_k, self.precision_recall_at_k, self.map_at_k,
        )  # fmt: skip
        k = min(max(max(depth) for depth in depths), size)
        prompt = {"prompt_name": self.query_prompt_name, "prompt": self.query_prompt}
        queries = _weights(self.embed_inputs(model, cast(Any, self.queries), "query", **prompt), "query")
        # The index knows a document by the place of its id in the order of all ids. It holds them in that
        # order, which is how it breaks ties, so they come out as stock breaks them.
        by_id = sorted(range(size), key=self.corpus_ids.__getitem__)
        place_of = np.empty(size, dtype=np.int64)
        place_of[by_id] = np.arange(size)
        best: list[Found] = []
        prompt = {"prompt_name": self.corpus_prompt_name, "prompt": self.corpus_prompt}
        starts = range(0, size, self.corpus_chunk_size)
        for start in track(starts, "corpus", unit="chunks", shown=self.show_progress_bar):
            chunk = slice(start, start + self.corpus_chunk_size)
            texts: Any = self.corpus[chunk]
            documents = _weights(self.embed_inputs(corpus_model, texts, "document", **prompt), "document")
            found = _search_chunk(self.make_index(), queries, documents, place_of[chunk], k)
            del documents  # before the next chunk is encoded
            pairs = zip(best, found, strict=True)
            best = [_merge(earlier, later, k) for earlier, later in pairs] if best else found
        for scores, places in best:
            missing = k - len(places)
            others = np.setdiff1d(np.arange(k), places)[:missing].tolist() if missing else []
            yield [
                {"corpus_id": self.corpus_ids[by_id[place]], "score": score}
                for place, score in zip(
                    places.tolist() + others, scores.tolist() + [0.0] * missing, strict=True
                )
            ]

    def _write_predictions(self, folder: Path, name: str, rankings: list[list[dict[str, Any]]]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / self.predictions_file.replace(".jsonl", f"_{name}.jsonl")
        with path.open("w", encoding="utf-8") as stream:
            for query_id, text, ranking in zip(self.queries_ids, self.queries, rankings, strict=True):
                row = {"query_id": query_id, "query": text, "results": ranking}
                stream.write(json.dumps(row) + "\n")


class IndexNanoBEIREvaluator(SparseNanoBEIREvaluator):
    """Stock's `SparseNanoBEIREvaluator` with `IndexInformationRetrievalEvaluator`: the same, but faster.

    Args:
        *arguments: Stock's.
        make_index: Gives a new, empty index; see `IndexInformationRetrievalEvaluator`.
        **options: Stock's.
    """

    def __init__(
        self, *arguments: Any, make_index: Callable[[], Index] = EmbeddedIndex, **options: Any
    ) -> None:
        # What stock makes the evaluator of each data set with.
        self.information_retrieval_class = partial(  # type: ignore[assignment]
            IndexInformationRetrievalEvaluator, make_index=make_index
        )
        super().__init__(*arguments, **options)

    @property
    def description(self) -> str:
        """What model cards call this measurement: the name of stock's, because it is the same."""
        return "Sparse Nano BEIR"


Found: TypeAlias = "tuple[NDArray[np.float32], NDArray[np.int64]]"
"""Scores and places of the documents found for a query."""


def _search_chunk(
    index: Index, queries: sp.csr_matrix, documents: sp.csr_matrix, places: NDArray[np.int64], k: int
) -> list[Found]:
    """The best ``k`` of a chunk for each query: by falling score, and equal scores by place."""
    order = np.argsort(places)
    index.add(places[order], documents[order])
    return [(hits.scores, hits.ids) for hits in index.search(queries, k)]


def _merge(earlier: Found, later: Found, k: int) -> Found:
    """The best ``k`` of two results, in the order of `_search_chunk`."""
    scores = np.concatenate([earlier[0], later[0]])
    places = np.concatenate([earlier[1], later[1]])
    order = np.lexsort((places, -scores))[:k]
    return scores[order], places[order]


def _weights(embeddings: Tensor, kind: str) -> sp.csr_matrix:
    """The vectors, with the vocabulary reversed.

    The index adds up a score from the last token to the first, stock the other way. Reversed, both round
    alike: scores are equal to the last bit, and none that differ by less than rounding change places.
    """
    matrix = as_csr(embeddings)
    if matrix.nnz and matrix.data.min() < 0:
        raise InputError(
            f"a {kind} vector holds a negative weight, which an index cannot rank: "
            "evaluate this model with SparseInformationRetrievalEvaluator"
        )
    return matrix[:, ::-1]


def _is_dot(function: Any, model: Any) -> bool:
    """Whether a score function is the dot product."""
    return function is dot_score or (function == model.similarity and model.similarity_fn_name == "dot")
