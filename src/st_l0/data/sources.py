"""Rows as dictionaries, from every kind of source: files, folders, the Hub, data sets and lists in Python."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from st_l0.data.arrow import is_hub_name, is_repository, is_saved, load_hub, load_saved
from st_l0.data.lines import Rows, read_arrow, read_parquet, read_records
from st_l0.data.tables import is_table, read_table
from st_l0.errors import InputError
from st_l0.utils.paths import local_path
from st_l0.utils.records import check_part, read_record

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

Source: TypeAlias = "str | Path | Dataset | IterableDataset"
Sources: TypeAlias = "Source | Sequence[Source] | Sequence[Mapping[str, Any]]"

_TAUGHT = "teachers.json"
# Columns of tables without a line of names: MS MARCO's triples, by text or by id, and pairs.
_UNNAMED = {3: ("query", "positive", "negative"), 2: ("query", "positive")}


def records_of(sources: Sources, is_known: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Stream the rows of training data, each with its place; see `st_l0.data.rows.read_rows`.

    Args:
        sources: One source or several, or rows.
        is_known: Whether a name is one of a column, which tells a table's line of names from a row.

    Raises:
        InputError: see `st_l0.data.rows.read_rows`.
    """
    one: Any = [sources] if isinstance(sources, (str, Path)) or is_dataset(sources) else sources
    if isinstance(one, Mapping) or not isinstance(one, (Sequence, Iterator)):
        advice = "give data['train'] or another split" if hasattr(one, "num_rows") else _ADVICE
        raise InputError(f"training data are of the type {type(one).__name__}; {advice}")
    items = iter(one)
    for first in items:
        if isinstance(first, Mapping):
            yield from ((f"row {number}", row) for number, row in python_rows(chain([first], items)))
        elif is_dataset(first):
            yield from ((f"row {number}", row) for number, row in python_rows(first))
        elif isinstance(first, (str, Path)):
            yield from _stored(first, is_known)
        else:
            raise InputError(f"training data hold {type(first).__name__}; {_ADVICE}")


_ADVICE = "give paths, data sets, or a list of dictionaries such as {'query': …, 'positive': …}"


def is_dataset(source: object) -> bool:
    """Whether it is a ``Dataset`` or ``IterableDataset``; datasets is not imported where nobody else has."""
    return (
        type(source).__module__.startswith("datasets.")
        and hasattr(source, "with_format")
        and not isinstance(source, dict)
    )


def python_rows(rows: Any) -> Rows:
    """Stream dictionaries, or the rows of a data set, with values as JSON would have them.

    Raises:
        InputError: one is no dictionary, or holds what is no text (half of a surrogate pair).
    """
    for number, row in enumerate(rows.with_format(None) if is_dataset(rows) else rows, 1):
        if not isinstance(row, Mapping):
            raise InputError(f"row {number}: is {type(row).__name__}; give a dictionary")
        record = {str(key): _plain(value) for key, value in row.items()}
        try:
            json.dumps(record, ensure_ascii=False, default=str).encode()
        except (UnicodeEncodeError, ValueError, RecursionError) as error:
            raise InputError(f"row {number}: cannot be text ({error}); mend or leave it out") from None
        yield number, record


def _plain(value: Any) -> Any:
    """A value as JSON would have it: arrays and tuples as lists; NaN, which pandas has for none, as null."""
    if hasattr(value, "tolist"):  # numpy, torch
        value = value.tolist()
    if isinstance(value, tuple):
        value = list(value)
    return None if isinstance(value, float) and value != value else value


def _stored(source: str | Path, is_known: Callable[[str], bool]) -> Iterator[tuple[str, dict[str, Any]]]:
    path = local_path(source)
    files = [path]
    taught: dict[str, Any] = {}
    dataset: Any = None
    if is_hub_name(source):
        dataset = load_hub(source, split="train")
    elif path.is_dir():
        files = sorted([*path.glob("part-*.jsonl"), *path.glob("part-*.jsonl.gz")])
        if is_saved(path):
            dataset = load_saved(path)
        elif not files and is_repository(path):
            dataset = load_hub(path, split="train")
        elif (path / _TAUGHT).is_file():
            taught = _taught(path / _TAUGHT)
        elif not files:
            raise InputError(f"{path}: holds neither part-*.jsonl[.gz] nor a saved dataset")
    if dataset is not None:
        for number, record in enumerate(dataset.with_format(None), 1):
            yield f"{source}:{number}", record
        return
    rows = 0
    for index, file in enumerate(files):
        if taught:
            check_part(file, index, taught, "let st-l0 teach write a new folder")
        for number, record in _read_file(file, is_known):
            rows += 1
            yield f"{file}:{number}", record
    if taught and taught["rows"] != rows:
        raise InputError(f"{path}: holds {rows} rows of {taught['rows']}: let st-l0 teach write a new folder")


def _read_file(path: Path, is_known: Callable[[str], bool]) -> Rows:
    if path.suffix == ".parquet":
        return read_parquet(path)
    if path.suffix == ".arrow":
        return read_arrow(path)
    if is_table(path):
        # A table has no null: an empty cell is absent.
        rows = read_table(path, is_known, _UNNAMED)
        return ((number, {name: cell or None for name, cell in row.items()}) for number, row in rows)
    return read_records(path)


def _taught(path: Path) -> dict[str, Any]:
    """What `st_l0.teachers.teach` notes at its end: the number of ``rows``, and digests of the parts."""
    record = read_record(path, ("rows",))
    if record["rows"] is None:
        raise InputError(f"{path.parent}: not all rows were scored: start st-l0 teach once more")
    return record
