"""Reading corpora: documents with unique ids."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_l0.data.arrow import is_saved, load_saved
from st_l0.data.lines import Rows, read_arrow, read_lines, read_parquet, read_records
from st_l0.data.parts import archive_of, find_part, is_folder, is_there, located
from st_l0.data.records import CORPUS, Document, Fields, document_of, identifier_of, is_field, relevant
from st_l0.data.sources import is_dataset, python_rows
from st_l0.data.tables import is_table, read_table
from st_l0.errors import InputError
from st_l0.utils.paths import input_path

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

_FIRST_ID_CHECK = 1 << 10
# Columns of tables without a line of names, as MS MARCO has them for passages, documents and queries.
_UNNAMED: dict[str, dict[int, tuple[str, ...]]] = {
    "corpus": {2: ("_id", "text"), 4: ("_id", "url", "title", "text")},
    "queries": {2: ("_id", "text")},
}


def read_documents(
    path: str | Path | Dataset | IterableDataset | Sequence[Mapping[str, Any]],
    *,
    text_fields: str | Sequence[str] | None = None,
    id_field: str | None = None,
) -> Iterator[Document]:
    """Stream a corpus.

    Args:
        path: ``.jsonl``, ``.json``; ``.csv``, ``.tsv`` (see `st_l0.data.tables.read_table`; without a line of
            names ``id``, ``text``, or ``id``, ``url``, ``title``, ``text``); ``.txt`` with a document a line
            (empty lines are empty documents); each of these with ``.gz`` or without; ``.parquet``,
            ``.arrow``; a folder of parquet files; a collection, see `read_collection`; a folder written by
            ``datasets.Dataset.save_to_disk``; or a ``.zip`` of one of them but the last.
            Each of them may lie at an address that fsspec opens, such as ``s3://bucket/corpus.jsonl.gz``.
            Or a ``Dataset``, an ``IterableDataset`` or a list of dictionaries.
        text_fields: Fields that make up the text, in order. Those that a record has are joined by one space;
            null counts as absent, an empty string adds nothing. ``None``: see `st_l0.data.records.Fields`.
        id_field: Field of the id; empty: the number of the line. ``None``: likewise.

    Yields:
        Documents, see `st_l0.data.records.document_of`. A record without an id has its line (row) number from
        1, but in a BEIR folder, where judgements name ids.

    Raises:
        InputError: the source cannot be read, a record has no text or one that is not a string, an id is
            neither a string nor an integer or occurs twice, or there is no document at all.
            Duplicates are reported while reading, though not at once: the check comes at 65,536 documents, at
            each doubling, and at the end, which keeps the memory at 8 bytes a document.
    """
    texts = (text_fields,) if isinstance(text_fields, str) else text_fields
    fields = Fields("corpus", id_field, None if texts is None else tuple(texts))
    if isinstance(path, (str, Path)):
        return read_source(input_path(path), fields)
    if is_dataset(path) or (isinstance(path, Sequence) and not isinstance(path, bytes)):
        return _read(Path("row"), partial(python_rows, path), fields, numbered=True)
    raise InputError(
        f"the corpus is of the type {type(path).__name__}; give a path or a list of dictionaries"
    )


def read_source(path: Path, fields: Fields) -> Iterator[Document]:
    """Stream a corpus, or the queries of one from a file; as `read_documents`."""
    place = located(path)
    source, rows = _open_corpus(place, fields)
    # In a BEIR folder judgements name the ids, so every record needs one.
    return _read(source, rows, fields, numbered=source == place or fields.id == "")


def read_beir(path: Path, fields: Fields = CORPUS) -> Iterator[Document]:
    """Stream the documents or the queries of a folder in BEIR layout; as `read_documents`."""
    return _read(*_open_corpus(path, fields), fields, numbered=False)


def _read(source: Path, rows: Callable[[], Rows], fields: Fields, *, numbered: bool) -> Iterator[Document]:
    hashes = array("q")
    next_check = _FIRST_ID_CHECK
    for number, record in rows():
        document = document_of(source, number, record, fields, numbered=numbered)
        hashes.append(hash(document.id))
        if len(hashes) == next_check:
            _refuse_duplicates(source, hashes, rows, fields)
            next_check *= 2
        yield document
    if not hashes:
        what = "the corpus is empty; give at least one document"
        raise InputError(f"{source}: {what if fields.kind == 'corpus' else 'no queries; give at least one'}")
    _refuse_duplicates(source, hashes, rows, fields)


def is_corpus(path: str | Path) -> bool:
    """Whether there is a file, or a folder of one of the layouts that `read_documents` reads."""
    if str(path).startswith(("opensearch:", "opensearch+")):  # an engine's address
        return False
    path = input_path(path)
    is_file = archive_of(path) == path or (is_there(path) and not is_folder(path))
    return is_file or is_saved(path) or find_part(path, "corpus") is not None


def _saved_rows(path: Path, fields: Fields) -> Rows:
    dataset = load_saved(path)
    columns = relevant(dataset.column_names, fields)
    yield from enumerate(dataset if columns is None else dataset.select_columns(columns), 1)


def _shards(files: Sequence[Path], fields: Fields) -> Rows:
    rows = (
        record for file in files for _, record in read_parquet(file, lambda names: relevant(names, fields))
    )
    return enumerate(rows, 1)


def _open_corpus(path: Path, fields: Fields) -> tuple[Path, Callable[[], Rows]]:
    """The path that complaints name, and a function that starts to read it."""
    if fields.texts == ():
        raise InputError(f"{path}: text_fields is empty; name at least one field")
    if is_folder(path):
        if is_saved(path):
            return path, partial(_saved_rows, path, fields)
        corpus = find_part(path, "corpus")
        if corpus is not None:
            return _open_corpus(corpus, fields)
        if shards := sorted(path.glob("*.parquet")):
            return path, partial(_shards, shards, fields)
        raise InputError(f"{path}: neither a BEIR folder (no corpus.jsonl[.gz]) nor a saved dataset")
    name = path.name.removesuffix(".gz")
    if name.endswith(".txt"):
        line_field = "text" if fields.texts is None else fields.texts[0]
        return path, lambda: ((number, {line_field: line}) for number, line in read_lines(path))
    if name.endswith((".jsonl", ".json", ".ndjson")):
        return path, partial(read_records, path)
    if path.suffix == ".parquet":
        return path, partial(read_parquet, path, lambda names: relevant(names, fields))
    if path.suffix == ".arrow":
        return path, partial(read_arrow, path)
    if is_table(path):
        return path, partial(read_table, path, lambda name: is_field(name, fields), _UNNAMED[fields.kind])
    raise InputError(
        f"{path}: unknown kind of corpus; give .jsonl, .json, .tsv, .csv or .txt (these also with .gz), "
        ".parquet, .arrow or a folder"
    )


def _refuse_duplicates(source: Path, hashes: array[int], rows: Callable[[], Rows], fields: Fields) -> None:
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    if len(values) == len(hashes):
        return
    # Two ids may share a hash by chance: read again, and compare the ids themselves.
    suspects = set(values[counts > 1].tolist())
    lines: dict[str, int] = {}
    for number, record in rows():
        identifier = identifier_of(f"{source}:{number}", record, fields) or str(number)
        if hash(identifier) not in suspects:
            continue
        if identifier in lines:
            raise InputError(
                f"{source}:{number}: id {identifier!r} occurs already in line {lines[identifier]}"
            )
        lines[identifier] = number
