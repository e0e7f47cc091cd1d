"""The examples in the docstrings run, and every public name has one."""

import doctest
import sys

import pytest

from st_l0 import losses


@pytest.mark.parametrize("name", losses.__all__)
def test_has_an_example(name):
    assert ">>> " in getattr(losses, name).__doc__


@pytest.mark.parametrize("module", sorted({getattr(losses, name).__module__ for name in losses.__all__}))
def test_examples(module):
    found = doctest.testmod(sys.modules[module])
    assert found.attempted > 0
    assert found.failed == 0
