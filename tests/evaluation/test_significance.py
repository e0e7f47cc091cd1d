import itertools

import numpy as np
import pytest
import scipy.stats

from st_l0.errors import InputError
from st_l0.evaluation.significance import holm, randomisation_test


def exact(*rows):
    """All swaps, one by one."""
    parts = [value / (len(row) * len(rows)) for row in rows for value in row]
    seen = abs(sum(parts))
    sums = [abs(sum(np.multiply(signs, parts))) for signs in itertools.product((1, -1), repeat=len(parts))]
    return sum(one >= seen - 1e-12 for one in sums) / len(sums)


@pytest.mark.parametrize(
    "rows",
    [
        [[0.5, 0.25, 0.125]],
        [[0.3, -0.1, 0.2, 0.4, 0.0, 0.1, -0.2, 0.3]],
        [[0.1] * 7 + [-0.1] * 2],
        [[0.2, 0.1, -0.4], [0.3, 0.3, 0.1, 0.2, 0.6]],
    ],
)
def test_few_queries_are_looked_at_in_all_ways(rows):
    found = exact(*rows)
    assert randomisation_test(rows) == pytest.approx(found, abs=1e-12)
    # As a draw it is the same but for chance; zeros are left out of the ways, not of the mean.
    drawn = randomisation_test(rows, permutations=4, seed=3)
    many = np.mean([randomisation_test(rows, permutations=7, seed=seed) for seed in range(300)])
    assert 0 < drawn <= 1 and many == pytest.approx((7 * found + 1) / 8, abs=0.06)


def test_a_draw_agrees_with_scipy_and_with_itself():
    differences = np.random.default_rng(1).normal(0.02, 0.2, 300)
    found = randomisation_test([differences])
    reference = scipy.stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=10_000, batch=500, vectorized=True
    )
    assert found == pytest.approx(reference.pvalue, abs=0.02)
    assert found == randomisation_test([differences]) == randomisation_test([-differences])
    assert randomisation_test([np.full(40, 0.1)]) == 1 / 10_001
    assert randomisation_test([[0.0, 0.0]]) == 1.0


def test_what_cannot_be_tested():
    for rows in ([], [[]], [[0.1], []], [[float("nan")]]):
        with pytest.raises(InputError, match="at least one query"):
            randomisation_test(rows)


def test_holm():
    # By hand: .005 x 4, .01 x 3, .03 x 2, .04 x 1 which may not fall.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []
