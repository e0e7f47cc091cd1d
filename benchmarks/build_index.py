"""Building an index: documents a second on one core, where the time goes, and what flushing costs.

Claims: at least 300,000 documents a second and core from CSR vectors in memory, written to a folder, at 175
tokens a document; most of it is the transposition from rows to postings, at the speed of scipy's own. Flushing
to the disk, which makes every addition safe against a crash, costs little for large additions and most of the
time for small ones.

    python benchmarks/build_index.py

The vectors are those of ``search.py``; the ids are str. "Stock" is scipy's ``tocsc`` alone: the least that any
index of postings must do. All takes one thread.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import scipy.sparse as sp
import torch
from common import medians, report
from search import VOCABULARY, draw, names, show, token_probabilities

from st_l0.index import EmbeddedIndex

DOCUMENTS = 100_000
BATCHES = (100_000, 10_000, 1_000)
REPEATS = 7


@contextmanager
def unflushed() -> Iterator[None]:
    """Write without waiting for the disk."""
    with patch.object(os, "fsync", lambda descriptor: None):
        yield


def build(path: Path | None, corpus: sp.csr_matrix, batch: int) -> EmbeddedIndex:
    """A new index, in a folder or in memory."""
    if path is not None:
        shutil.rmtree(path, ignore_errors=True)
    index, ids = EmbeddedIndex(path), names(0, corpus.shape[0])
    for start in range(0, len(ids), batch):
        stop = start + batch
        rows = corpus if batch >= len(ids) else corpus[start:stop]
        index.add(ids[start:stop], rows)
    return index


def build_unflushed(path: Path, corpus: sp.csr_matrix, batch: int) -> EmbeddedIndex:
    """The same, without waiting for the disk."""
    with unflushed():
        return build(path, corpus, batch)


def assert_same(path: Path, corpus: sp.csr_matrix) -> None:
    """The index holds exactly the postings of scipy's transposition."""
    columns = corpus.tocsc()
    parts = EmbeddedIndex(path)._state.parts
    blocks = [
        sp.csc_matrix((part.segment.weights, part.segment.rows, part.segment.indptr), (len(part), VOCABULARY))
        for part in parts
    ]
    stored = sp.vstack(blocks, format="csc")
    np.testing.assert_array_equal(stored.indptr, columns.indptr)
    np.testing.assert_array_equal(stored.indices, columns.indices)
    np.testing.assert_array_equal(stored.data, columns.data)


def profile(path: Path, corpus: sp.csr_matrix) -> None:
    """Print the functions that take most of the time."""
    profiler = cProfile.Profile()
    profiler.runcall(build, path, corpus, DOCUMENTS)
    stats = pstats.Stats(profiler)
    times: dict[str, float] = {}
    for (_, _, name), (_, _, seconds, *_) in stats.stats.items():  # type: ignore[attr-defined]
        times[name] = times.get(name, 0.0) + seconds
    print("profile of one addition to a folder, flushed:")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:10]:
        print(f"  {seconds / stats.total_tt:4.0%}  {name}")  # type: ignore[attr-defined]


def main() -> None:
    """Measure in memory, in a folder, and in a folder without flushing, with large and small additions."""
    torch.set_num_threads(1)
    corpus = draw(DOCUMENTS, token_probabilities()[0], seed=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "index")
        found = medians(
            {
                "scipy": corpus.tocsc,
                "memory": lambda: build(None, corpus, DOCUMENTS),
                "unflushed": lambda: build_unflushed(path, corpus, DOCUMENTS),
                "folder": lambda: build(path, corpus, DOCUMENTS),
            },
            REPEATS,
        )
        assert_same(path, corpus)
        for name, seconds in found.items():
            print(f"{name:10} {DOCUMENTS / seconds:10,.0f} documents/s")
        for name, where in (
            ("memory", "in memory"),
            ("unflushed", "in a folder, not flushed"),
            ("folder", "in a folder"),
        ):
            claim = f"a document added {where}, {DOCUMENTS:,} at a time, against scipy's tocsc alone"
            ours, stock = found[name] / DOCUMENTS * 1e6, found["scipy"] / DOCUMENTS * 1e6
            report(claim, ours=ours, stock=stock, unit="us", threads=1, goal=None)
        flushing = found["folder"] - found["unflushed"]
        print(
            f"flushing {DOCUMENTS:,} documents once costs {flushing:.3f} s ({flushing / found['folder']:.0%})"
        )
        profile(path, corpus)
        for batch in BATCHES[1:]:
            times = medians(
                {
                    "folder": lambda batch=batch: build(path, corpus, batch),
                    "unflushed": lambda batch=batch: build_unflushed(path, corpus, batch),
                },
                2,
            )
            assert_same(path, corpus)
            show(
                f"a document added in a folder, {batch:,} at a time",
                times["folder"] / DOCUMENTS * 1e6,
                "us",
                1,
            )
            share = 1 - times["unflushed"] / times["folder"]
            print(f"  {DOCUMENTS / times['folder']:,.0f} documents/s; flushing takes {share:.0%} of the time")


if __name__ == "__main__":
    main()
