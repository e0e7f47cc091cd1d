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
from st_l0.utils.paths import local_path

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
        Documents, see `document_of`. A record without an id has its line (row) number from 1, but in a BEIR
        folder, where judgements name ids.

    Raises:
        InputError: the source cannot be read, a record has none of ``text_fields`` or one that is not a
            string, an id is neither a string nor an integer or occurs twice, or there is no document at all.
            Duplicates are reported while reading, though not at once: the check comes at 65,536 documents, at
            each doubling, and at the end, which keeps the memory at 8 bytes a document.
    """
    path = local_path(path)
    source, rows = _open_corpus(path, text_fields)
    # In a BEIR folder judgements name the ids, so every record needs one.
    return _read(source, rows, text_fields, numbered=source == path)


def read_beir(path: Path) -> Iterator[Document]:
    """Stream ``corpus.jsonl`` or ``queries.jsonl`` of a folder in BEIR layout; as `read_documents`."""
    return _read(path, partial(read_records, path), ("title", "text"), numbered=False)


def _read(
    source: Path, rows: Callable[[], Rows], text_fields: Sequence[str], *, numbered: bool
) -> Iterator[Document]:
    hashes = array("q")
    next_check = _FIRST_ID_CHECK
    for number, record in rows():
        document = document_of(source, number, record, text_fields, numbered=numbered)
        hashes.append(hash(document.id))
        if len(hashes) == next_check:
            _refuse_duplicates(source, hashes, rows)
            next_check *= 2
        yield document
    if not hashes:
        raise InputError(f"{source}: the corpus is empty; give at least one document")
    _refuse_duplicates(source, hashes, rows)


def find_beir(folder: Path, name: str) -> Path | None:
    """The file ``name`` or ``name.gz`` of a folder in BEIR layout, ``None`` if it has none."""
    files = (folder / name, folder / f"{name}.gz")
    return next((file for file in files if file.exists()), None)


def is_corpus(path: str | Path) -> bool:
    """Whether there is a file, or a folder of one of the layouts that `read_documents` reads."""
    if "://" in str(path):  # an engine's address, perhaps
        return False
    path = local_path(path)
    return path.is_file() or is_saved(path) or find_beir(path, "corpus.jsonl") is not None


def document_of(
    source: str | Path,
    number: int,
    record: dict[str, Any],
    text_fields: Sequence[str] = ("title", "text"),
    *,
    numbered: bool = True,
) -> Document:
    """A record of a corpus, or of the queries of a collection: the one rule for all who read such files.

    The id is ``_id``, else ``id``: a string or an integer. White space around it is dropped, which tables of
    judgements and run files cannot hold. The text is made of those of ``text_fields`` that are strings and
    not empty, joined by one space, and is otherwise left as it is; null counts as absent.

    Args:
        source: What complaints name.
        number: Line or row of the record, from 1.
        record: The record.
        text_fields: Fields of the text, in order.
        numbered: Whether ``number`` is the id of a record that has none.

    Raises:
        InputError: The id is absent (unless ``numbered``), empty, or neither a string nor an integer; the
            record has none of the fields, or one that is not a string.
    """
    return Document(
        _identifier_of(source, number, record, numbered), _text_of(source, number, record, text_fields)
    )


def _identifier_of(source: str | Path, number: int, record: dict[str, Any], numbered: bool) -> str:
    for key in ("_id", "id"):
        if key in record:
            value = record[key]
            kept = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
            if kept:
                return kept
            absent = "no _id, " if value is None else ""
            raise InputError(
                f"{source}:{number}: {absent}{key} is {value!r:.40}; give a string or an integer"
            )
    if not numbered:
        raise InputError(f"{source}:{number}: no _id; give every line one")
    return str(number)


def _text_of(source: str | Path, number: int, record: dict[str, Any], fields: Sequence[str]) -> str:
    present = {name: record[name] for name in fields if record.get(name) is not None}
    if not present:
        raise InputError(
            f"{source}:{number}: none of the fields {', '.join(fields)}, so no text; name it with text_fields"
        )
    for name, value in present.items():
        if not isinstance(value, str):
            raise InputError(f"{source}:{number}: {name} is {type(value).__name__}; give a string")
    return " ".join(value for value in present.values() if value)


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
        corpus = find_beir(path, "corpus.jsonl")
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
        identifier = _identifier_of(source, number, record, True)
        if hash(identifier) not in suspects:
            continue
        if identifier in lines:
            raise InputError(
                f"{source}:{number}: id {identifier!r} occurs already in line {lines[identifier]}"
            )
        lines[identifier] = number
