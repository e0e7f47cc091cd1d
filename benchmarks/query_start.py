"""What one `st-l0 search` costs from start to end, with and without the documents' encoder.

Claims: ten times less processor time without, most of it the imports of numpy, scipy and typer; the index
alone costs little more to import than numpy and scipy.

    python benchmarks/query_start.py

Processor time (user and system, all threads) of whole processes, in turn. *Stock* is the same search over an
index that does not know its query side, for which the whole encoder is loaded; of the import, it is numpy and
``scipy.sparse`` alone.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import parse_threads, report

from st_l0 import SparseEncoder
from st_l0.index import EmbeddedIndex
from st_l0.indexing.identity import index_metadata

MODEL = Path(__file__).parents[1] / "models" / "st-l0-mini"
DOCUMENTS = ["Read a file from the disk.", "Sort a list of numbers.", "Open a connection to a server."]
QUERY, REPEATS, IMPORTS = "how to read a file", 9, ("st_l0.index", "numpy, scipy.sparse")


def run(arguments: list[str], threads: int) -> tuple[float, str]:
    """Processor seconds of a fresh Python, and what it prints."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return seconds, result.stdout.decode()


def medians(commands: dict[str, list[str]], threads: int) -> dict[str, float]:
    """Median processor seconds of each command, in turn, after one run that fills the caches of the disk."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for repeat in range(REPEATS + 1):
        printed = set()
        for name, command in commands.items():
            seconds, output = run(command, threads)
            printed.add(output)
            if repeat:
                times[name].append(seconds)
        assert len(printed) == 1, "the two sides find other documents"
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    """Time a search and an import."""
    threads = parse_threads(__doc__)
    model = SparseEncoder.from_pretrained(MODEL, device="cpu")
    vectors = model.encode_document(DOCUMENTS, convert_to_scipy=True)
    made_with = index_metadata(model, MODEL)
    indexes = {"ours": made_with, "stock": {**made_with}}
    del indexes["stock"]["query_fingerprint"]
    with tempfile.TemporaryDirectory() as folder:
        for name, metadata in indexes.items():
            EmbeddedIndex(Path(folder, name), metadata=metadata).add([*"abc"], vectors, DOCUMENTS)
        search = ["-m", "st_l0", "search"]
        commands = {name: [*search, str(Path(folder, name)), QUERY] for name in indexes}
        found = medians(commands, threads)
    ours, whole = found["ours"], found["stock"]
    report("one st-l0 search", ours=ours, stock=whole, unit="s of CPU", threads=threads, goal=10)
    found = medians({names: ["-c", f"import {names}"] for names in IMPORTS}, threads)
    ours, floor = (found[names] for names in IMPORTS)
    report("import st_l0.index", ours=ours, stock=floor, unit="s of CPU", threads=threads, goal=None)


if __name__ == "__main__":
    main()
