"""Building an index: documents a second on one core, where the time goes, and what flushing costs.

Claims: at least 300,000 documents a second and core from CSR vectors in memory, at 175 tokens a document;
most of the time is the transposition from rows to postings, at the speed of scipy's own. Flushing to the
disk, by which an addition outlives a crash, costs little for large additions, and more for small ones.

    python benchmarks/build_index.py

The vectors are those of ``search.py``; the ids are str. "Stock" is scipy's ``tocsc`` alone: the least that
any index of postings must do. All takes one thread.
"""

from __future__ import annotations

import cProfile
import os
import pstats
import shutil
import tempfile
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


def build(corpus: sp.csr_matrix, batch: int, folder: Path | None = None) -> Path:
    """A new index in a new folder below ``folder``, whose path it gives, or in memory."""
    path = Path() if folder is None else Path(tempfile.mkdtemp(dir=folder))
    index, ids = EmbeddedIndex(None if folder is None else path), names(0, corpus.shape[0])
    for start in range(0, len(ids), batch):
        index.add(ids[start : start + batch], corpus[start : start + batch] if batch < len(ids) else corpus)
    return path


def build_unflushed(corpus: sp.csr_matrix, batch: int, folder: Path) -> Path:
    """The same, without waiting for the disk."""
    with patch.object(os, "fsync", lambda descriptor: None):
        return build(corpus, batch, folder)


def remove(folder: Path) -> None:
    """Remove what was built, so that it costs nobody else time."""
    for path in folder.iterdir():
        shutil.rmtree(path)


def assert_same(path: Path, corpus: sp.csr_matrix) -> None:
    """The index holds exactly the postings of scipy's transposition."""
    columns = corpus.tocsc()
    segments = EmbeddedIndex(path)._snapshot.segments
    blocks = [live.segment.vectors.block(0, VOCABULARY).T for live in segments]
    stored = sp.vstack(blocks, format="csc")
    np.testing.assert_array_equal(stored.indptr, columns.indptr)
    np.testing.assert_array_equal(stored.indices, columns.indices)
    np.testing.assert_array_equal(stored.data, columns.data)


def profile(corpus: sp.csr_matrix, folder: Path) -> None:
    """Print the functions that take most of the time."""
    profiler = cProfile.Profile()
    profiler.runcall(build, corpus, DOCUMENTS, folder)
    stats = pstats.Stats(profiler)
    times: dict[str, float] = {}
    for (_, _, name), (_, _, seconds, *_) in stats.stats.items():  # type: ignore[attr-defined]
        times[name] = times.get(name, 0.0) + seconds
    print("profile of one addition to a folder, flushed:")
    for name, seconds in sorted(times.items(), key=lambda item: -item[1])[:10]:
        print(f"  {seconds / sum(times.values()):4.0%}  {name}")


def main() -> None:
    """Measure in memory, in a folder, and in a folder without flushing, with large and small additions."""
    torch.set_num_threads(1)
    corpus = draw(DOCUMENTS, token_probabilities()[0], seed=0)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        assert_same(build(corpus, DOCUMENTS, folder), corpus)
        found = medians(
            {
                "scipy": corpus.tocsc,
                "in memory": lambda: build(corpus, DOCUMENTS),
                "in a folder, not flushed": lambda: build_unflushed(corpus, DOCUMENTS, folder),
                "in a folder": lambda: build(corpus, DOCUMENTS, folder),
                "removal": lambda: remove(folder),
            },
            REPEATS,
        )
        for where in list(found)[1:4]:
            print(f"{where}: {DOCUMENTS / found[where]:,.0f} documents/s (goal 300,000)")
            claim = f"a document added {where}, {DOCUMENTS:,} at a time, against scipy's tocsc alone"
            ours, stock = found[where] / DOCUMENTS * 1e6, found["scipy"] / DOCUMENTS * 1e6
            report(claim, ours=ours, stock=stock, unit="us", threads=1, goal=None)
        profile(corpus, folder)
        for batch in BATCHES:
            assert_same(build(corpus, batch, folder), corpus)
            times = medians(
                {
                    "flushed": lambda batch=batch: build(corpus, batch, folder),
                    "not": lambda batch=batch: build_unflushed(corpus, batch, folder),
                    "removal": lambda: remove(folder),
                },
                3,
            )
            claim = f"a document added in a folder, {batch:,} at a time"
            show(claim, times["flushed"] / DOCUMENTS * 1e6, "us", 1)
            rate, share = DOCUMENTS / times["flushed"], 1 - times["not"] / times["flushed"]
            print(f"  {rate:,.0f} documents/s; flushing takes {share:.0%} of the time")


if __name__ == "__main__":
    main()
