"""A model for mteb that finds documents in an index."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError, require
from st_l0.index import EmbeddedIndex, Index
from st_l0.utils.sparse import as_csr


class MtebModel:
    """What `mteb.evaluate` takes as a model: its retrieval and reranking tasks, with an index for the search.

    mteb prepares the texts and measures; this brings its ``SearchProtocol``: the corpus goes into an index,
    50,000 documents at a time, and no ``(queries, documents)`` matrix of scores is made. The model
    itself can be given to mteb too (it then scores densely); the numbers are the same, except that here a
    document that shares no token with the query is not found, where the dense way fills its ranking up with
    arbitrary documents of score 0. Where a task gives the documents to rank, those get 0.

    Args:
        model: An encoder whose similarity is the dot product.
        name: ``organization/model``, by which mteb files the results.
        revision: Commit of the checkpoint on the Hub, for results to be published. If None, a digest of the
            weights and of all settings that change vectors.
        make_index: Gives a new, empty index, by default in memory; called once a corpus.

    Attributes:
        mteb_model_meta: The ``ModelMeta`` of mteb. It loads the checkpoint with mteb's own wrapper, so others
            can repeat the numbers with mteb alone. Complete it for a submission:
            ``model.mteb_model_meta = model.mteb_model_meta.model_copy(update={"license": "mit", …})``.

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
    ) -> None:
        models = require("mteb.models", "eval")
        if not re.fullmatch(r"[^/\s]+/[^/\s]+", name):
            raise InputError(f"{name!r} is no name for mteb: give organization/model")
        if revision in ("main", "master", "HEAD"):
            raise InputError(f"revision {revision!r} moves: give the commit that was evaluated, or nothing")
        if model.similarity_fn_name != "dot":
            raise InputError(f"the model compares by {model.similarity_fn_name}, an index by the dot product")
        weights = list(model.parameters())
        self.mteb_model_meta = models.ModelMeta.from_sparse_encoder_model(model).model_copy(
            update={
                "name": name,
                "revision": revision or _digest(model),
                "n_parameters": sum(weight.numel() for weight in weights),
                "memory_usage_mb": round(sum(weight.nbytes for weight in weights) / 2**20),
                "use_instructions": any(model.prompts.values()),
            }
        )
        self._index = _Index(make_index)
        encoder = _Encoder(model, self.mteb_model_meta)
        self._search = models.SearchEncoderWrapper(encoder, index_backend=self._index)

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


class _Index:
    """mteb's ``IndexEncoderSearchProtocol`` on an index of ours."""

    def __init__(self, make_index: Callable[[], Index]) -> None:
        self._make_index = make_index
        self.ids: list[str] = []

    @cached_property
    def _index(self) -> Index:
        return self._make_index()

    def add_documents(self, embeddings: Tensor, idxs: Iterable[str]) -> None:
        """Add documents; the index knows them by their position."""
        first = len(self.ids)
        self.ids.extend(idxs)
        self._index.add(np.arange(first, len(self.ids)), embeddings)

    def search(
        self,
        embeddings: Tensor,
        top_k: int,
        similarity_fn: Any,
        top_ranked: Mapping[str, list[str]] | None = None,
        query_idx_to_id: Mapping[int, str] | None = None,
    ) -> tuple[list[list[float]], list[list[int]]]:
        """Scores and positions of the best documents: in the corpus, or in the list that is given to rank."""
        if top_ranked is None or query_idx_to_id is None:
            found = self._index.search(embeddings, top_k)
            return [hits.scores.tolist() for hits in found], [hits.ids.tolist() for hits in found]
        position_of = dict(zip(self.ids, range(len(self.ids)), strict=True))
        queries = as_csr(embeddings)
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
        vars(self).pop("_index", None)  # mteb clears after each search; the next documents make a new one


def _digest(model: SparseEncoder) -> str:
    """40 hexadecimal digits, as of a commit, that name all that the vectors depend on."""
    limits = (model.max_seq_length, model.tokenizer.model_max_length)  # of documents and of queries
    settings = (*limits, model.max_active_dims, sorted(model.prompts.items()), repr(model))
    return hashlib.sha256(f"{model.fingerprint()} {settings}".encode()).hexdigest()[:40]
