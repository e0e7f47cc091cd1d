"""The examples in the docstrings run."""

import doctest

import pytest

from st_l0.teachers import ensemble, teaching


@pytest.mark.parametrize("module", [ensemble, teaching])
def test_examples(module):
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0
