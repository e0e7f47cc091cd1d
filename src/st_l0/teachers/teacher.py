"""What a teacher is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from torch import Tensor

Side = Literal["query", "document"]


class Teacher(Protocol):
    """Scores texts; higher is better. It is never trained.

    A score depends on query and document alone, up to float rounding, and equal pairs of one call get equal
    scores.

    Attributes:
        name: What it was loaded from, such as ``"dense:./folder"``.
        vocabulary: Token to id, for a teacher whose vectors are over the tokens of a vocabulary.
    """

    name: str
    vocabulary: dict[str, int] | None

    def score_pairs(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Score ``queries[i]`` with ``documents[i]``: ``(pairs,)``, float32, on the CPU."""
        ...

    def score_all(self, queries: Sequence[str], documents: Sequence[str]) -> Tensor:
        """Score each query with each document: ``(queries, documents)``, float32, on the CPU."""
        ...
