"""Reading corpora: documents with unique ids."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from st_l0.data.arrow import is_saved, load_saved
from st_l0.data.lines import Rows, read_lines, read_parquet, read_records
from st_l0.errors import InputError

_FIRST_ID_CHECK = 1 << 10


class Document(NamedTuple):
    """One document of a corpus.

    Attributes:
        id: Identifier, unique in its corpus.
        text: What is encoded; may be empty.
    """

    id: str
    text: str


def read_documents(path: str | Path, *, text_fields: Sequence[str] = ("title", "text")) -> Iterator[Document]:
    """Stream a corpus.

    Args:
        path: ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; ``.txt`` or ``.txt.gz`` with a document a line (empty
            lines are empty documents); a BEIR folder (with ``corpus.jsonl`` or ``corpus.jsonl.gz``); or a
            folder written by ``datasets.Dataset.save_to_disk``.
        text_fields: Fields that make up the text, in order. Those that a record has are joined by one space;
            null counts as absent, an empty string adds nothing.

    Yields:
        Documents. The id is ``_id`` or ``id`` of the record, else its line (row) number from 1.

    Raises:
        InputError: the source cannot be read, a record has none of ``text_fields`` or one that is not a
            string, an id is neither a string nor an integer or occurs twice, or there is no document at all.
            Duplicates are reported while reading, though not at once: the check comes at 65,536 documents, at
            each doubling, and at the end, which keeps the memory at 8 bytes a document.
    """
    source, rows = _open_corpus(Path(path), text_fields)
    hashes = array("q")
    next_check = _FIRST_ID_CHECK
    for number, record in rows():
        identifier = identifier_of(source, number, record)
        document = Document(identifier, text_of(source, number, record, text_fields))
        hashes.append(hash(document.id))
        if len(hashes) == next_check:
            _refuse_duplicates(source, hashes, rows)
            next_check *= 2
        yield document
    if not hashes:
        raise InputError(f"{source}: the corpus is empty; give at least one document")
    _refuse_duplicates(source, hashes, rows)


def find_beir(folder: Path, name: str) -> Path | None:
    """The file ``name.jsonl`` or ``name.jsonl.gz`` of a folder in BEIR layout, ``None`` if it has none."""
    files = (folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz")
    return next((file for file in files if file.exists()), None)


def is_corpus(path: str | Path) -> bool:
    """Whether there is a file, or a folder of one of the layouts that `read_documents` reads."""
    path = Path(path)
    return path.is_file() or is_saved(path) or find_beir(path, "corpus") is not None


def text_of(source: str | Path, number: int, record: dict[str, Any], fields: Sequence[str]) -> str:
    """The text of a record: those of its fields that it has, joined by one space.

    Raises:
        InputError: it has none of the fields, or one that is not a string.
    """
    present = {name: record[name] for name in fields if record.get(name) is not None}
    if not present:
        raise InputError(
            f"{source}:{number}: none of the fields {', '.join(fields)}; name the text with text_fields"
        )
    for name, value in present.items():
        if not isinstance(value, str):
            raise InputError(f"{source}:{number}: {name} is {type(value).__name__}; give a string")
    return " ".join(value for value in present.values() if value)


def identifier_of(source: str | Path, number: int, record: dict[str, Any]) -> str:
    """The id of a record: ``_id`` or ``id``, else its number.

    Raises:
        InputError: the id is neither a string nor an integer, or it is empty.
    """
    for key in ("_id", "id"):
        if key in record:
            value = record[key]
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return str(value)
            raise InputError(f"{source}:{number}: {key} is {value!r:.40}; give a string or an integer")
    return str(number)


def _saved_rows(path: Path, columns: Sequence[str]) -> Rows:
    dataset = load_saved(path)
    present = [name for name in dataset.column_names if name in columns]
    if not present:
        raise InputError(
            f"{path}: has none of the columns {', '.join(columns)}; name the text with text_fields"
        )
    yield from enumerate(dataset.select_columns(present), 1)


def _open_corpus(path: Path, text_fields: Sequence[str]) -> tuple[Path, Callable[[], Rows]]:
    """The path that complaints name, and a function that starts to read it."""
    if not text_fields:
        raise InputError(f"{path}: text_fields is empty; name at least one field")
    columns = ["_id", "id", *text_fields]
    if path.is_dir():
        if is_saved(path):
            return path, partial(_saved_rows, path, columns)
        corpus = find_beir(path, "corpus")
        if corpus is not None:
            return corpus, partial(read_records, corpus)
        raise InputError(f"{path}: neither a BEIR folder (no corpus.jsonl[.gz]) nor a saved dataset")
    name = path.name.removesuffix(".gz")
    if name.endswith(".txt"):
        return path, lambda: ((number, {text_fields[0]: line}) for number, line in read_lines(path))
    if name.endswith((".jsonl", ".json")):
        return path, partial(read_records, path)
    if path.suffix == ".parquet":
        return path, partial(read_parquet, path, columns)
    raise InputError(f"{path}: unknown kind of corpus; give .jsonl[.gz], .parquet, .txt[.gz] or a folder")


def _refuse_duplicates(source: Path, hashes: array[int], rows: Callable[[], Rows]) -> None:
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    if len(values) == len(hashes):
        return
    # Two ids may share a hash by chance: read again, and compare the ids themselves.
    suspects = set(values[counts > 1].tolist())
    lines: dict[str, int] = {}
    for number, record in rows():
        identifier = identifier_of(source, number, record)
        if hash(identifier) not in suspects:
            continue
        if identifier in lines:
            raise InputError(
                f"{source}:{number}: id {identifier!r} occurs already in line {lines[identifier]}"
            )
        lines[identifier] = number
