"""Reading tables of text: ``.csv``, and ``.tsv`` with or without a line of names."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from st_l0.data.lines import Rows, read_lines
from st_l0.errors import InputError

_LARGEST_FIELD = 2**31 - 1
_LONGEST_NAME = 64
_NAME = re.compile(r"[A-Za-z][A-Za-z_-]*")  # what no id (which has digits) and no passage looks like
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')


def is_table(path: str | Path) -> bool:
    """Whether a file is a table, by its name: ``.tsv`` or ``.csv``, perhaps with ``.gz``."""
    return str(path).lower().removesuffix(".gz").endswith((".tsv", ".csv"))


def read_table(
    path: str | Path, is_known: Callable[[str], bool], unnamed: Mapping[int, Sequence[str]]
) -> Rows:
    """Stream the rows of a table.

    A ``.csv`` begins with the names of its columns; fields with separators, quotes and line breaks are
    quoted. A ``.tsv`` holds a row a line. It begins with names if one of its first fields is known; its
    fields then may be quoted. If not, it is read as MS MARCO's are: no names, and every character but the tab
    is text.

    Args:
        path: The file, compressed if its name ends in ``.gz``.
        is_known: Whether a name is one of a column, which tells a line of names from a row.
        unnamed: Names of the columns of a table without names, for each number of columns that there may be.

    Yields:
        Line number, from 1, and the row: each name, and a text, which may be empty.

    Raises:
        InputError: the file cannot be read, its first line holds no known name or one twice, or a row has
            more or fewer fields. The message starts with ``path:line``.
    """
    csv.field_size_limit(_LARGEST_FIELD)  # documents are longer than its 131,072
    lines = read_lines(path)
    number, first = next(lines, (1, ""))
    if str(path).lower().removesuffix(".gz").endswith(".csv"):
        separator = next((mark for mark in ",;\t" if any(map(is_known, _names(first, mark)))), None)
        if separator is None:
            raise InputError(
                f"{path}:1: {first!r:.80} holds no name of a column that is known; begin with names, or say "
                "which they are (columns, id_field, text_fields)"
            )
        yield from _named(path, _names(first, separator), _quoted(path, lines, separator))
        return
    fields = first.split("\t")
    names = [name.strip(' "') for name in fields]
    if any(map(is_known, names)) and len(max(names, key=len)) <= _LONGEST_NAME:
        yield from _named(path, names, ((at, _unquoted(line)) for at, line in lines if line.strip()))
        return
    if first and all(map(_NAME.fullmatch, names)):
        raise InputError(
            f"{path}:1: {', '.join(names):.80} look like names of columns, but none is known; say which they "
            "are (columns, id_field, text_fields)"
        )
    if not first and next(lines, None) is None:
        return
    if len(fields) not in unnamed:
        forms = ", or ".join(", ".join(known) for known in unnamed.values())
        raise InputError(f"{path}:1: {len(fields)} fields and no line of names; give {forms}, with tabs")
    yield number, dict(zip(unnamed[len(fields)], fields, strict=True))
    plain = ((at, line.split("\t")) for at, line in lines if line.strip())
    yield from _named(path, unnamed[len(fields)], plain)


def _names(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]


def _named(path: str | Path, names: Sequence[str], rows: Iterator[tuple[int, list[str]]]) -> Rows:
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{path}:1: two columns are called {twice[0]!r:.40}; give each its own name")
    for number, fields in rows:
        if len(fields) != len(names):
            raise InputError(
                f"{path}:{number}: {len(fields)} fields for {len(names)} columns; give one for each"
            )
        yield number, dict(zip(names, fields, strict=True))


def _quoted(
    path: str | Path, lines: Iterator[tuple[int, str]], separator: str
) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator, strict=True)
    number = 2
    try:
        for fields in reader:
            if fields:
                yield number, fields
            number = reader.line_num + 2
    except csv.Error as error:
        raise InputError(f"{path}:{number}: not CSV ({error}); quote fields as CSV does") from None


def _unquoted(line: str) -> list[str]:
    fields = line.split("\t")
    whole = (_QUOTED.fullmatch(field) if field.startswith('"') else None for field in fields)
    return [
        field if found is None else found[1].replace('""', '"')
        for field, found in zip(fields, whole, strict=True)
    ]
