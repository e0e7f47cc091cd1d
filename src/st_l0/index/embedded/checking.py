"""Reading all of an index to find out whether it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st_l0.errors import InputError
from st_l0.index.embedded.arrays import DTYPES, open_array
from st_l0.index.embedded.segment import Segment, array_lengths
from st_l0.index.embedded.storage import Folder, read_deleted
from st_l0.index.embedded.strings import Strings

_ROWS = 10_000  # strings decoded at a time


class Findings(NamedTuple):
    """What `check_index` found.

    Attributes:
        problems: A line for each damaged or missing file, with its name; empty if the index is whole.
        documents: How many the index holds, by its manifest.
        segments: How many it has.
        unchecked: How many of them have no checksums, so that only their sizes, ranges and order were proven.
    """

    problems: list[str]
    documents: int
    segments: int
    unchecked: int


def check_index(path: str | Path) -> Findings:
    """Read every file of an index and compare it with its checksums.

    Nothing is changed or locked. If a writer replaces files meanwhile, the check starts again.

    Raises:
        InputError: There is no index, or its manifest is damaged, so that its files are not known.
    """
    folder = Folder(path)
    while True:
        raw, manifest = folder.read()
        entries, size = manifest["segments"], manifest["vocabulary_size"]
        problems = [problem for entry in entries for problem in _problems(folder.path, size, entry)]
        if not problems or folder.read()[0] == raw:
            return Findings(
                problems,
                sum(entry["documents"] - entry["deleted_rows"] for entry in entries),
                len(entries),
                sum(entry.get("checksums") is None for entry in entries),
            )


def _problems(path: Path, vocabulary_size: int, entry: dict[str, Any]) -> Iterator[str]:
    folder, checksums = path / entry["name"], entry.get("checksums")
    whole = True
    for name, length in array_lengths(vocabulary_size, entry).items():
        try:
            expected = None if checksums is None else checksums[name]
            open_array(folder / f"{name}.npy", DTYPES[name], length, expected).prove()
        except (InputError, FileNotFoundError) as error:
            whole = False
            yield _line(error)
    try:
        if entry["deleted"] is not None:
            read_deleted(path, entry)
    except (InputError, FileNotFoundError) as error:
        yield _line(error)
    if not whole:
        return
    try:
        segment = Segment.open(folder, vocabulary_size, entry)
        segment.prove()
        if segment.words is not None:
            segment.words.all()
        for column in (segment.ids, segment.texts):
            if not isinstance(column, Strings):
                continue
            for start in range(0, len(segment), _ROWS):
                column.take(np.arange(start, min(start + _ROWS, len(segment))))
    except (InputError, FileNotFoundError) as error:
        yield _line(error)


def _line(error: InputError | FileNotFoundError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{error.filename} is missing: restore the index from a copy or build it again"
    return str(error)
