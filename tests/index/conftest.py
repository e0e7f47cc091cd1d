import os

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch):
    """No test pulls the plug, so flushing would only cost time; one test checks that it is asked for."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture
def generator():
    return np.random.default_rng(7)


@pytest.fixture
def small_segments(monkeypatch):
    """Merge early, in many chunks and into several segments, so that few documents reach every path."""
    monkeypatch.setattr("st_l0.index.embedded.merging.FAN_IN", 3)
    monkeypatch.setattr("st_l0.index.embedded.merging.SMALL", 40)
    monkeypatch.setattr("st_l0.index.embedded.merging.MAX_SIZE", 700)
    monkeypatch.setattr("st_l0.index.embedded.postings._CHUNK_POSTINGS", 25)
