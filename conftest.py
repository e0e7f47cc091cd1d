"""The examples of the docstrings run without the Hub, as the tests do, from the folder of this file."""

import os

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before huggingface_hub is imported


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_auto_num_workers() -> int:
    """A process more than cores, as servers are waited for; four at most: each takes a gigabyte or two."""
    return min((os.cpu_count() or 1) + 1, 4)
