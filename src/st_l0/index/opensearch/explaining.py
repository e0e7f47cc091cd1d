"""Why a document has its score, from the server's own account of it."""

from __future__ import annotations

import re
from typing import Any

from st_l0.index.opensearch.documents import Names
from st_l0.index.opensearch.record import VECTORS, WORDS

_FEATURE = re.compile(rf"Linear function on the {VECTORS} field for the (.+) feature, computed", re.DOTALL)
_WORD = re.compile(rf"weight\({WORDS}:(.+) in \d+\)", re.DOTALL)

Parts = dict["int | str", "tuple[float, float]"]


def as_parts(explanation: dict[str, Any], names: Names, scale: float) -> Parts:
    """The parts of a score; see `Index.explain`.

    Args:
        explanation: What a search with ``explain`` says of a hit.
        names: Of the features.
        scale: What the query was divided by.
    """
    parts: Parts = {}
    for node in _leaves(explanation):
        feature = _FEATURE.match(node["description"])
        if feature:
            weight, stored = (float(one["value"]) for one in node["details"])
            parts[names.number(feature[1])] = (weight * scale, stored)
            continue
        (score,) = node["details"]
        factors = {one["description"].partition(",")[0]: float(one["value"]) for one in score["details"]}
        word = _WORD.match(node["description"])
        assert word is not None
        parts[word[1]] = (factors.get("boost", 1.0) * factors["idf"] * scale, factors["tf"])
    return dict(sorted(parts.items(), key=lambda part: -part[1][0] * part[1][1]))


def _leaves(node: dict[str, Any]) -> list[dict[str, Any]]:
    """The nodes that are about one feature or one word."""
    if _FEATURE.match(node["description"]) or _WORD.match(node["description"]):
        return [node]
    return [leaf for inner in node.get("details", ()) for leaf in _leaves(inner)]
