"""Queries as the server takes them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.index.opensearch.documents import Names, as_words
from st_l0.index.opensearch.record import ID, VECTORS, WORDS
from st_l0.index.opensearch.server import CLAUSES, USUAL_CLAUSES

_HEAVIEST = 64.0  # neural_sparse takes no more
TWO_PHASE = {"prune_type": "max_ratio", "prune_ratio": 0.4, "expansion_rate": 5.0, "max_window_size": 10_000}


class Asked(NamedTuple):
    """One query.

    Attributes:
        clause: What goes under ``query``, without filters.
        scale: What its scores have to be multiplied by: a power of two.
    """

    clause: dict[str, Any]
    scale: float


class Form(NamedTuple):
    """How queries are written.

    Attributes:
        names: Of the features.
        neural: Whether the server has ``neural_sparse``.
        clauses: The most clauses that one query may have; the server is asked where there are many.
    """

    names: Names
    neural: bool
    clauses: Callable[[], int]


def as_asked(
    form: Form, matrix: sp.csr_matrix, words: Sequence[Sequence[str]] | None, bm25: float, filters: int
) -> list[Asked | None]:
    """Write queries; None for one that has nothing to look for.

    Args:
        form: How.
        matrix: Shape ``(queries, vocabulary)``, no weight negative.
        words: Of each query's text; None if words do not count.
        bm25: How much they count.
        filters: Clauses that each query has beside these.

    Raises:
        InputError: A query has more tokens and words than the server allows.
    """
    asked: list[Asked | None] = []
    for row in range(matrix.shape[0]):
        start, stop = matrix.indptr[row : row + 2].tolist()
        own = [] if words is None else words[row]
        count = stop - start + len(set(own)) + filters
        if count > USUAL_CLAUSES and count > form.clauses():
            raise InputError(
                f"query {row} has {count:,} tokens, words and filters, and the server allows "
                f"{form.clauses():,}: raise {CLAUSES}, or leave small weights out (prune=)"
            )
        weights = matrix.data[start:stop].astype(np.float64)
        highest = max(float(weights.max(initial=0.0)), bm25 if own else 0.0)
        scale = 2.0 ** math.ceil(math.log2(highest / _HEAVIEST)) if highest > _HEAVIEST else 1.0
        parts = []
        if stop > start:
            features = form.names.of(matrix.indices[start:stop].tolist())
            parts.append(_vectors(form, dict(zip(features, (weights / scale).tolist(), strict=True))))
        if own:
            parts.append({"match": {WORDS: {"query": as_words(own), "boost": bm25 / scale}}})
        clause = parts[0] if len(parts) == 1 else {"bool": {"should": parts, "minimum_should_match": 1}}
        asked.append(Asked(clause, scale) if parts else None)
    return asked


def _vectors(form: Form, features: dict[str, float]) -> dict[str, Any]:
    if form.neural:
        return {"neural_sparse": {VECTORS: {"query_tokens": features}}}
    clauses = [
        {"rank_feature": {"field": f"{VECTORS}.{name}", "boost": weight, "linear": {}}}
        for name, weight in features.items()
    ]
    return {"bool": {"should": clauses, "minimum_should_match": 1}}


def as_body(clause: dict[str, Any], size: int, filters: list[dict[str, Any]], **more: Any) -> str:
    """A search of the best ``size``, by score and then by id; nothing is read of a document but its id."""
    if filters:
        clause = {"bool": {"should": [clause], "minimum_should_match": 1, "filter": filters}}
    body = {
        "size": size,
        "query": clause,
        "sort": ["_score", ID],
        "_source": False,
        "stored_fields": "_none_",
        "track_total_hits": False,
        **more,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None})


def two_phase(given: bool | Mapping[str, Any], size: int) -> dict[str, Any] | None:
    """The pipeline of a search in two phases, and how its hits come; None for one in one phase.

    Raises:
        InputError: A parameter is unknown, or the first phase would have too many hits.
    """
    if not given:
        return None
    parameters = {**TWO_PHASE, **(given if isinstance(given, Mapping) else {})}
    unknown = parameters.keys() - TWO_PHASE.keys()
    if unknown:
        raise InputError(f"two_phase has no {min(unknown)!r:.40}; it has {', '.join(TWO_PHASE)}")
    if size * parameters["expansion_rate"] > parameters["max_window_size"]:
        raise InputError(
            f"two phases of {size} hits need a max_window_size of {size * parameters['expansion_rate']:g}, "
            f"not {parameters['max_window_size']}: raise it, or search in one"
        )
    kind = {
        name: parameters[name] for name in ("prune_type", "prune_ratio", "expansion_rate", "max_window_size")
    }
    processor = {"neural_sparse_two_phase_processor": {"enabled": True, "two_phase_parameter": kind}}
    # It is refused with a sort; the id comes from its column then.
    return {"search_pipeline": {"request_processors": [processor]}, "sort": None, "docvalue_fields": [ID]}


def prune(matrix: sp.csr_matrix, ratio: float) -> sp.csr_matrix:
    """Without the weights of a query that are below ``ratio`` times its heaviest.

    Raises:
        InputError: ``ratio`` is not of 0 to 1.
    """
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise InputError(f"prune must be a number of 0 to 1, not {ratio!r:.40}")
    if not ratio or not matrix.nnz:
        return matrix
    highest = np.maximum.reduceat(
        np.append(matrix.data, np.float32(0)), np.minimum(matrix.indptr[:-1], matrix.nnz)
    )
    matrix = matrix.copy()
    matrix.data[matrix.data < np.float32(ratio) * np.repeat(highest, np.diff(matrix.indptr))] = 0
    matrix.eliminate_zeros()
    return matrix
