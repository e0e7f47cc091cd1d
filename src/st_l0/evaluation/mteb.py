"""Models for mteb that find documents in an index: an encoder, and BM25."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from torch import Tensor

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError, require
from st_l0.evaluation.costs import Activity, matching_costs
from st_l0.evaluation.model_meta import describe
from st_l0.index import EmbeddedIndex, Index
from st_l0.utils.sparse import as_csr, as_torch
from st_l0.utils.words import K1, Analyzer, B


class _IndexSearch:
    """mteb's ``SearchProtocol``: a corpus goes into an index, part by part.

    Attributes:
        mteb_model_meta: The ``ModelMeta`` of mteb.
        costs: After a search, what `matching_costs` gives, of its queries and its corpus.
    """

    def __init__(self, encoder: Any, make_index: Callable[[], Index], chunk: int | None = None) -> None:
        self.mteb_model_meta = encoder.mteb_model_meta
        self._index = _Index(make_index)
        models = require("mteb.models", "eval")
        self._search = models.SearchEncoderWrapper(encoder, index_backend=self._index)
        if chunk is not None:
            self._search.corpus_chunk_size = chunk

    @property
    def costs(self) -> dict[str, float]:
        return self._index.costs

    def index(self, corpus: Any, **options: Any) -> None:
        """Encode a corpus and index it; arguments as in mteb's ``SearchProtocol``."""
        self._index.clear()
        chunk = self._search.corpus_chunk_size
        for start in range(0, len(corpus), chunk):
            self._search.index(corpus.select(range(start, min(start + chunk, len(corpus)))), **options)
        # Of the corpus a search reads the ids only, one at a time, for which a data set takes 0.1 ms each.
        self._search.task_corpus = {"id": self._index.ids}

    def search(self, queries: Any, **options: Any) -> dict[str, dict[str, float]]:
        """Find documents; arguments and result as in mteb's ``SearchProtocol``."""
        found: dict[str, dict[str, float]] = self._search.search(queries, **options)
        return found


class MtebModel(_IndexSearch):
    """What `mteb.evaluate` takes as a model: its retrieval and reranking tasks, with an index for the search.

    mteb prepares the texts and measures; this brings its ``SearchProtocol``: the corpus goes into an index,
    50,000 documents at a time, and no ``(queries, documents)`` matrix of scores is made. The model
    itself can be given to mteb too, which then scores densely. All metrics ``@100`` and below are the same
    where 100 documents share a token with each query; ``@1000`` and nAUC are not: here a document that shares
    no token with the query is not found, where the dense way fills its ranking up with arbitrary documents of
    score 0. Where a task gives the documents to rank, those get 0 in both, and all metrics are the same; mteb
    orders equal scores by falling id.

    Args:
        model: An encoder whose similarity is the dot product.
        name: ``organization/model``, by which mteb files the results.
        revision: Commit of the checkpoint on the Hub, for results to be published. If None, a digest of the
            weights and of all settings that change vectors.
        make_index: Gives a new, empty index, by default in memory; called once a corpus.
        meta: The ``ModelMeta``, in place of what ``name`` and ``revision`` give; it loads the checkpoint with
            mteb's own wrapper, so others can repeat the numbers with mteb alone. See
            `st_l0.evaluation.model_meta.describe` for a complete one.

    Attributes:
        mteb_model_meta: The ``ModelMeta`` of mteb.

    Raises:
        InputError: ``name`` is not of that form, ``revision`` names a branch, or the similarity is another.
        MissingExtraError: the extra ``eval`` is not installed.

    Example:
        >>> searched = MtebModel(model, "my-org/my-model")  # doctest: +SKIP
        >>> mteb.evaluate(searched, mteb.get_benchmark("NanoBEIR"))  # doctest: +SKIP
    """

    def __init__(
        self,
        model: SparseEncoder,
        name: str,
        revision: str | None = None,
        *,
        make_index: Callable[[], Index] = EmbeddedIndex,
        meta: Any = None,
    ) -> None:
        if model.similarity_fn_name != "dot":
            raise InputError(f"the model compares by {model.similarity_fn_name}, an index by the dot product")
        meta = describe(model, name, revision) if meta is None else meta
        super().__init__(_Encoder(model, meta), make_index)


class MtebBM25(_IndexSearch):
    """BM25 as a model for mteb: Lucene's variant, the words of the English `st_l0.utils.words.Analyzer`.

    It is a sparse vector too, of the words of the corpus at hand, and is searched in the same index.

    Raises:
        MissingExtraError: the extra ``eval`` is not installed.
    """

    def __init__(self) -> None:
        # All of a corpus at once: the weights come from its statistics.
        super().__init__(_Words(), EmbeddedIndex, chunk=1 << 62)


class _Encoder:
    """What mteb's search asks of a model; unlike mteb's own wrapper it leaves the vectors sparse."""

    def __init__(self, model: SparseEncoder, meta: Any) -> None:
        self._model = model
        self.mteb_model_meta = meta
        self.similarity = model.similarity

    def encode(
        self,
        inputs: Iterable[Mapping[str, Any]],
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: Any,
        **options: Any,
    ) -> Tensor:
        """Encode batches of mteb's, with the prompt that mteb's wrapper would choose."""
        find_prompt = require("mteb.models.abs_encoder", "eval").get_prompt_name
        prompts = self._model.prompts
        prompt = prompts.get(find_prompt(prompts, task_metadata, prompt_type))
        encode: Any = (
            self._model.encode_query if prompt_type.value == "query" else self._model.encode_document
        )
        vectors: Tensor = encode(
            [text for batch in inputs for text in batch["text"]], prompt=prompt, save_to_cpu=True, **options
        )
        return vectors


class _Words:
    """Texts → the vectors whose dot product is BM25."""

    similarity = None

    def __init__(self) -> None:
        models = require("mteb.models", "eval")
        self._split = Analyzer()
        variant = f"lucene-k{K1}-b{B}-english-{self._split.fingerprint}"
        given = {"name": "st-l0/bm25", "revision": variant, "model_type": ["sparse"]}
        self.mteb_model_meta = models.ModelMeta.create_empty(overwrites=given)
        self._vocabulary: dict[str, int] = {}

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, prompt_type: Any, **options: Any) -> Tensor:
        """Encode batches of mteb's; the documents of a corpus come before its queries."""
        texts = self._split([text for batch in inputs for text in batch["text"]])
        if prompt_type.value == "query":
            known = [
                [self._vocabulary[word] for word in words if word in self._vocabulary] for words in texts
            ]
            places = np.concatenate([np.zeros(0, np.int64), *map(np.asarray, known)]).astype(np.int64)
            rows = np.repeat(np.arange(len(known)), [len(words) for words in known])
            counts = sp.csr_matrix(
                (np.ones(len(places), np.float32), (rows, places)), shape=(len(texts), self._width)
            )
            counts.sum_duplicates()
            return as_torch(counts)
        self._vocabulary = {}
        documents = [
            [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words] for words in texts
        ]
        import bm25s

        if not self._vocabulary:  # bm25s cannot index a corpus without words
            return as_torch(sp.csr_matrix((len(texts), self._width), dtype=np.float32))
        engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
        engine.index((documents, dict(self._vocabulary)), show_progress=False)  # which adds a word
        scores = engine.scores  # of each document for each of its words, by words
        by_words = sp.csc_matrix(
            (scores["data"], scores["indices"], scores["indptr"]), shape=(len(texts), self._width)
        )
        return as_torch(by_words.tocsr())

    @property
    def _width(self) -> int:
        return max(len(self._vocabulary), 1)


class _Index:
    """mteb's ``IndexEncoderSearchProtocol`` on an index of ours."""

    def __init__(self, make_index: Callable[[], Index]) -> None:
        self._make_index = make_index
        self.ids: list[str] = []
        self.costs: dict[str, float] = {}
        self._documents = Activity()

    @cached_property
    def _index(self) -> Index:
        return self._make_index()

    def add_documents(self, embeddings: Tensor, idxs: Iterable[str]) -> None:
        """Add documents; the index knows them by their position."""
        first = len(self.ids)
        self.ids.extend(idxs)
        vectors = as_csr(embeddings)
        self._documents.add(vectors)
        self._index.add(np.arange(first, len(self.ids)), vectors)

    def search(
        self,
        embeddings: Tensor,
        top_k: int,
        similarity_fn: Any,
        top_ranked: Mapping[str, list[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores and positions of the best documents: in the corpus, or in the list that is given to rank."""
        queries, asked = as_csr(embeddings), Activity()
        asked.add(queries)
        self.costs = matching_costs(asked, self._documents)
        if top_ranked is None or query_idx_to_id is None:
            found = self._index.search(queries, top_k)
            return [hits.scores.tolist() for hits in found], [hits.ids.tolist() for hits in found]
        position_of = dict(zip(self.ids, range(len(self.ids)), strict=True))
        scores, places = [], []
        for row in range(queries.shape[0]):
            candidates = [position_of[id] for id in top_ranked.get(query_idx_to_id[row], ())]
            score_of = dict.fromkeys(candidates, 0.0)
            if candidates:
                hits = self._index.search(queries[row], len(candidates), ids=list(score_of))[0]
                score_of |= zip(hits.ids.tolist(), hits.scores.tolist(), strict=True)
            best = sorted(range(len(candidates)), key=lambda place: -score_of[candidates[place]])[:top_k]
            places.append(best)
            scores.append([score_of[candidates[place]] for place in best])
        return scores, places

    def clear(self) -> None:
        """Drop the documents."""
        self.ids = []
        self._documents = Activity()
        vars(self).pop("_index", None)  # mteb clears after each search; the next documents make a new one
