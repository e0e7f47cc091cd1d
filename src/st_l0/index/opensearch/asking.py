"""From what a search is asked to its hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.index.embedded.arguments import as_ids
from st_l0.index.opensearch import queries, writing
from st_l0.index.opensearch.address import as_filter
from st_l0.index.opensearch.bound import Bound
from st_l0.index.opensearch.explaining import Parts, as_parts
from st_l0.index.opensearch.opening import clause_limit
from st_l0.index.opensearch.record import ID, TEXT, VECTORS
from st_l0.index.opensearch.texts import LazyTexts
from st_l0.index.protocol import Hits, Ids, as_weight
from st_l0.utils.inputs import as_texts

_TERMS = 1000  # of a filter of sparse_vector, each of which is a clause


@dataclass(frozen=True)
class Question:
    """What `OpenSearchIndex.search` is given, but for k."""

    vectors: sp.csr_matrix | None
    texts: Sequence[str] | None = None
    bm25: float | Literal["auto"] = 0.0
    ids: Ids | None = None
    filter: Mapping[str, Any] | None = None
    prune: float = 0.0
    two_phase: bool | Mapping[str, Any] = False
    seismic: Mapping[str, Any] | None = None


def answer(index: Bound, question: Question, k: int) -> list[Hits]:
    """Answer a batch of queries; see `OpenSearchIndex.search`."""
    state = index.state
    approximate = state.record.vectors == "sparse_vector"
    if question.seismic is not None and not approximate:
        raise InputError("seismic is about an index of sparse_vector, and this one has rank_features")
    if question.two_phase and approximate:
        raise InputError("two phases need rank_features, and the index has sparse_vector")
    if question.two_phase and not index.neural:
        raise InputError("two phases need the neural-search plugin, which the server has not")
    filters = [] if question.filter is None else as_filter(question.filter)
    if filters and approximate:
        raise InputError(
            "a filter by fields loses most hits of sparse_vector: build the index with rank_features"
        )
    chunks = _id_chunks(index, question.ids)
    asked = _asked(index, question, k, len(filters) + 1)
    counted = isinstance(question.bm25, str) or question.bm25 > 0
    phases = queries.two_phase(question.two_phase, k)
    found: list[list[tuple[float, str]]] = [[] for _ in asked]
    searcher = index.searcher()
    for chunk in chunks:
        allowed = filters if chunk is None else [*filters, {"terms": {ID: chunk}}]
        size = k if chunk is None else min(k, len(chunk))
        places, bodies = [], []
        for place, one in enumerate(asked):
            if one is not None:
                clause = one.clause
                if approximate:
                    clause = _seismic(clause, question.seismic, size, chunk)
                places.append(place)
                page = min(size, state.window)
                bodies.append(queries.as_body(clause, page, [] if approximate else allowed, **(phases or {})))
        if size > state.window:
            answers = [searcher.pages(body, size) for body in bodies]
        else:
            answers = searcher.search(bodies, statistics=counted)
        for place, found_now in zip(places, answers, strict=True):
            scale = asked[place].scale  # type: ignore[union-attr]
            found[place] += [(score * scale, id) for score, id in found_now.hits if score > 0]
    if len(chunks) > 1 or phases:
        found = [sorted(hits, key=lambda hit: (-hit[0], hit[1].encode()))[:k] for hits in found]
    return [_hits(index, hits) for hits in found]


def explain(index: Bound, question: Question, id: str) -> Parts:
    """Why a document has its score; see `OpenSearchIndex.explain`."""
    (one,) = _asked(index, question, 1, 1)
    if one is None:
        return {}
    if index.state.record.vectors == "sparse_vector":
        return _stored_parts(index, question, id)
    counted = isinstance(question.bm25, str) or question.bm25 > 0
    explanation = index.searcher().explain(one.clause, id, statistics=counted)
    return {} if explanation is None else as_parts(explanation, index.names, one.scale)


def _asked(index: Bound, question: Question, k: int, filters: int) -> list[queries.Asked | None]:
    words, weight = _words(index, question)
    matrix = question.vectors
    if matrix is None:
        if words is None:
            raise InputError("None is no vector; give a matrix of numbers, or texts and bm25 for words alone")
        matrix = sp.csr_matrix((len(words), index.vocabulary_size or 1), dtype=np.float32)
    if matrix.nnz and matrix.data.min() < 0:
        raise InputError(
            "a query has a negative weight, which OpenSearch cannot count: use an embedded index"
        )
    matrix = queries.prune(matrix, question.prune)
    names = index.names
    form = queries.Form(names, index.neural, lambda: clause_limit(index.server))
    if not form.neural and names.tokens is not None:
        raise InputError(
            "features that are named by tokens need the neural-search plugin, which the server has not"
        )
    return queries.as_asked(form, matrix, words, weight, filters)


def _words(index: Bound, question: Question) -> tuple[list[list[str]] | None, float]:
    """The words of each query, None if they do not count, and their weight; errors as for `search`."""
    weight = as_weight(question.bm25, index.bm25_weight)
    texts = question.texts
    if texts is not None:
        index.words()
        texts = as_texts(texts, "query")
        if question.vectors is not None and len(texts) != question.vectors.shape[0]:
            raise InputError(f"{len(texts)} texts were given for {question.vectors.shape[0]} query vectors")
    if not weight:
        return None, weight
    settings = index.words()
    if texts is None:
        raise InputError("bm25 counts the words of the queries: give their texts, too")
    return settings.split(texts), weight


def _id_chunks(index: Bound, ids: Ids | None) -> list[list[str] | None]:
    """The ids among which to search, as many at a time as a filter may have; ``[None]`` for all documents."""
    if ids is None:
        return [None]
    values = list(dict.fromkeys(as_ids(ids)))
    kind = index.state.record.id_kind
    if values and kind not in (None, "str" if isinstance(values[0], str) else "int"):
        raise InputError(f"the index has {kind} ids, but {values[0]!r} is not one")
    approximate = index.state.record.vectors == "sparse_vector"
    size = min(index.state.terms, _TERMS) if approximate else index.state.terms
    return [list(map(str, values[start : start + size])) for start in range(0, len(values), size)]


def _seismic(
    clause: dict[str, Any],
    given: Mapping[str, Any] | None,
    size: int,
    chunk: list[str] | None,
) -> dict[str, Any]:
    """The clause of a search of ``sparse_vector``.

    Its own k and top_n are 10, and would cut both. Where no more than k documents pass a filter they are all
    scored, and with more most are lost: so k is as large as the filter.
    """
    (body,) = clause["neural_sparse"].values()
    parameters = {"k": size, "top_n": len(body["query_tokens"]), **(given or {})}
    if chunk is not None:
        # It takes no query that Lucene has yet to rewrite, as one of many terms is.
        terms = {"bool": {"should": [{"term": {ID: id}} for id in chunk]}}
        parameters |= {"k": max(parameters["k"], len(chunk)), "filter": terms}
    return {"neural_sparse": {VECTORS: {**body, "method_parameters": parameters}}}


def stored_vector(index: Bound, id: str) -> sp.csr_matrix:
    """The vector of a document as it was added, shape ``(1, vocabulary_size)``."""
    (stored,) = writing.sources(index.server, index.state, [id], VECTORS)
    weights = {index.names.number(name): float(weight) for name, weight in (stored or {}).items()}
    tokens = sorted(weights)
    data = np.array([weights[token] for token in tokens], dtype=np.float32)
    ends = np.array([0, len(tokens)])
    return sp.csr_matrix((data, tokens, ends), shape=(1, index.vocabulary_size or 1))


def _stored_parts(index: Bound, question: Question, id: str) -> Parts:
    (stored,) = writing.sources(index.server, index.state, [id], VECTORS)
    assert question.vectors is not None
    parts: Parts = {}
    for token, weight in zip(question.vectors.indices.tolist(), question.vectors.data.tolist(), strict=True):
        value = (stored or {}).get(str(token))
        if value is not None:
            parts[token] = (weight, float(value))
    return dict(sorted(parts.items(), key=lambda part: -part[1][0] * part[1][1]))


def _hits(index: Bound, hits: list[tuple[float, str]]) -> Hits:
    scores = np.array([score for score, _ in hits], dtype=np.float32)
    names = [id for _, id in hits]
    ids = np.empty(len(names), dtype=np.int64 if index.state.record.id_kind == "int" else object)
    ids[:] = [int(id) for id in names] if ids.dtype == np.int64 else names
    server, state = index.server, index.state
    return Hits(ids, scores, LazyTexts(names, lambda some: writing.sources(server, state, some, TEXT)))
