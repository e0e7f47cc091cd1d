"""Which documents may be hard negatives, and by which score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from st_l0.errors import InputError
from st_l0.index.protocol import as_weight


@dataclass(frozen=True)
class Settings:
    """Which documents may be negatives; checked when made."""

    number: int
    depth: tuple[int, int]
    margin: float | None
    max_ratio: float | None
    bm25: float | Literal["auto"] = 0.0

    def __post_init__(self) -> None:
        first, last = self.depth
        if not 1 <= first <= last:
            raise InputError(f"depth is {first} to {last}; give a first rank from 1 and a last one not below")
        span = last - first + 1
        if not 1 <= self.number <= span:
            raise InputError(f"number is {self.number}; depth {first} to {last} allows 1 to {span}")
        if self.margin is not None and self.max_ratio is not None:
            raise InputError("both margin and max_ratio were given; give at most one of them")
        if self.margin is not None and not self.margin >= 0:
            raise InputError(f"margin is {self.margin}; give 0 or more, in units of the score")
        if self.max_ratio is not None and not 0 < self.max_ratio <= 1:
            raise InputError(f"max_ratio is {self.max_ratio}; give more than 0 and at most 1")

        if self.bm25 != "auto":
            as_weight(self.bm25)

    def limit(self, positive: float) -> float:
        """The highest score of a negative beside a positive of some score."""
        if self.margin is not None:
            return positive - self.margin
        return float("inf") if self.max_ratio is None else positive * self.max_ratio
