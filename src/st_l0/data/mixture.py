"""How often a training sees the rows of each of several sources."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Mixture(NamedTuple):
    """Sources of training data, each with its share of the examples of a training.

    An epoch has as many examples as all sources together, and each source gives as many of them as its weight
    says. A source is gone through in random order, then in another one, and so on, and an epoch takes it up
    where the last one left it: over a whole training, the rows of a source are seen equally often, give or
    take one.

    Attributes:
        counts: Examples of each source, which stand in the data set one source after the other.
        weights: What each counts; only their ratios matter.

    Example:
        >>> Mixture((6, 2), (1.0, 1.0)).given()
        [4, 4]
        >>> sorted(Mixture((6, 2), (1.0, 1.0)).rows(seed=0, epoch=0)[4:].tolist())
        [6, 6, 7, 7]
    """

    counts: tuple[int, ...]
    weights: tuple[float, ...]

    @property
    def shares(self) -> list[float]:
        """The weights divided by their sum."""
        total = sum(self.weights)
        return [weight / total for weight in self.weights]

    def given(self) -> list[int]:
        """Examples that each source gives an epoch; rounded, so that they add up."""
        total = sum(self.counts)
        exact = [total * share for share in self.shares]
        given = [math.floor(number) for number in exact]
        left = sorted(range(len(exact)), key=lambda source: given[source] - exact[source])
        for source in left[: total - sum(given)]:
            given[source] += 1
        return given

    def rows(self, seed: int, epoch: int) -> npt.NDArray[np.int64]:
        """Rows of the data set that an epoch sees, source by source; ``(sum(counts),)``.

        They follow from the arguments alone, so that all processes and a resumed training have the same.
        """
        found, first = [], 0
        for source, (count, given) in enumerate(zip(self.counts, self.given(), strict=True)):
            start, end = epoch * given, (epoch + 1) * given
            passes = range(start // count, math.ceil(end / count))
            orders = [np.random.default_rng([seed, source, number]).permutation(count) for number in passes]
            if orders:
                begin = passes[0] * count
                found.append(first + np.concatenate(orders)[start - begin : end - begin])
            first += count
        return np.concatenate(found)
