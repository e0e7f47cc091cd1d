"""Whether one system is better than another beyond chance: a paired randomisation test."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from st_l0.errors import InputError

PERMUTATIONS = 10_000
_BATCH = 500  # permutations that are in memory at once


def randomisation_test(
    differences: Sequence[ArrayLike], *, permutations: int = PERMUTATIONS, seed: int = 0
) -> float:
    """Two-sided p-value of a mean difference, by swapping the two systems in single queries at random.

    Args:
        differences: For each collection, one system's quality less the other's, query by query. What is
            tested is the mean over collections of the mean over queries.
        permutations: How many are drawn; where there are no more than these in all, all are looked at and the
            value is exact.
        seed: Of the draw.

    Returns:
        Share of the swaps that make a difference as large as the one seen; of those drawn and the one seen,
        so that it is never 0.

    Raises:
        InputError: There are no queries, or a difference is not finite.

    Example:
        >>> randomisation_test([[0.5, 0.25, 0.125]])  # 2 of 8: all swapped, and none
        0.25

    Source: Smucker, Allan & Carterette, 2007, https://doi.org/10.1145/1321440.1321528
    """
    rows = [np.asarray(row, dtype=np.float64) for row in differences]
    if not rows or not all(row.size and np.isfinite(row).all() for row in rows):
        raise InputError(
            "a test needs the quality of at least one query in each collection, as finite numbers"
        )
    parts = np.concatenate([row / (row.size * len(rows)) for row in rows])
    parts = parts[parts != 0]  # swapping equal ones changes nothing
    if not parts.size:
        return 1.0
    # What differs by rounding is as large: sums of the same numbers in another order.
    seen = abs(parts.sum()) - 1e-9 * np.abs(parts).sum()
    if 2**parts.size <= permutations:
        codes = np.arange(2**parts.size)[:, None] >> np.arange(parts.size) & 1
        return float((np.abs((1 - 2 * codes) @ parts) >= seen).mean())
    draw, found = np.random.default_rng(seed), 0
    for start in range(0, permutations, _BATCH):
        shape = (min(_BATCH, permutations - start), parts.size)
        signs = 1 - 2 * draw.integers(0, 2, shape, dtype=np.int8)
        found += int((np.abs(signs @ parts) >= seen).sum())
    return (found + 1) / (permutations + 1)


def holm(values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that all of them together err as seldom as one.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]

    Source: Holm, 1979, https://www.jstor.org/stable/4615733
    """
    corrected, largest = [0.0] * len(values), 0.0
    for place, number in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        largest = min(1.0, max(largest, (len(values) - place) * values[number]))
        corrected[number] = largest
    return corrected
