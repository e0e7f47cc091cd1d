"""Reading corpora and training pairs from files, strictly: every complaint names the file and the line."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from st_l0.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset

_BATCH_ROWS = 4096
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_FIRST_ID_CHECK = 1 << 10

Rows = Iterator[tuple[int, dict[str, Any]]]


class Document(NamedTuple):
    """One document of a corpus.

    Attributes:
        id: Identifier, unique in its corpus.
        text: What is encoded; may be empty.
    """

    id: str
    text: str


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Stream the lines of a UTF-8 text file, compressed if its name ends in ``.gz``.

    Yields:
        Line number, from 1, and the line without its end. Only line feeds end a line.

    Raises:
        InputError: there is no such file, it is a folder, or it is not UTF-8 or not valid gzip. The message
            starts with ``path:line``.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file")
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            # Bytes, so that only "\n" ends a line and a bad byte is reported with its line.
            for number, raw in enumerate(cast(BinaryIO, stream), 1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except (EOFError, zlib.error, OSError) as error:
        raise InputError(f"{path}:{number + 1}: cannot be read ({error}); the file may be damaged") from None


def read_records(path: str | Path) -> Rows:
    """Stream the JSON objects of a file that holds one a line; blank lines are skipped.

    Args:
        path: A file of JSON lines (``.jsonl``, ``.json``), compressed if its name ends in ``.gz``.

    Yields:
        Line number, from 1, and the object on that line.

    Raises:
        InputError: there is no such file, it is a folder, it is not UTF-8 or not valid gzip, or a line is not
            one JSON object. The message starts with ``path:line``.
    """
    for number, line in read_lines(path):
        if not line or line.isspace():
            continue
        try:
            record = json.loads(line)
            if _SURROGATE.search(line):
                json.dumps(
                    record, ensure_ascii=False
                ).encode()  # half a pair is no text: tokenizers refuse it
        except (ValueError, RecursionError) as error:
            reason = str(error) or "nested too deeply"
            raise InputError(
                f"{path}:{number}: invalid JSON ({reason}); give one JSON object a line"
            ) from None
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise InputError(
                f"{path}:{number}: expected a JSON object, found {kind}; give one JSON object a line"
            )
        yield number, record


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
        document = Document(_identifier(source, number, record), _text(source, number, record, text_fields))
        hashes.append(hash(document.id))
        if len(hashes) == next_check:
            _refuse_duplicates(source, hashes, rows)
            next_check *= 2
        yield document
    if not hashes:
        raise InputError(f"{source}: the corpus is empty; give at least one document")
    _refuse_duplicates(source, hashes, rows)


def read_pairs(paths: str | Path | Sequence[str | Path]) -> Dataset:
    """Read training pairs, with or without hard negatives.

    Args:
        paths: One or several files, ``.jsonl``, ``.jsonl.gz`` or ``.parquet``, of rows ``query``,
            ``positive`` and optionally ``negative`` (a text) or ``negatives`` (a list of texts). Other keys
            are ignored.

    Returns:
        A dataset with the columns ``query``, ``positive`` and, for one negative a row, ``negative``, for
        n > 1 negatives ``negative_1`` to ``negative_n``.

    Raises:
        InputError: a file cannot be read, a text is missing, empty or not a string, two rows have different
            numbers of negatives, or there is no row at all.
    """
    from datasets import Dataset, concatenate_datasets

    paths = [paths] if isinstance(paths, (str, Path)) else paths
    parts: list[Dataset] = []
    texts: list[list[str]] = []
    columns: list[str] = []
    for path in map(Path, paths):
        rows = _parquet_rows(path) if path.suffix == ".parquet" else read_records(path)
        for number, record in rows:
            row = _pair(path, number, record)
            columns = columns or _pair_columns(len(row) - 2)
            if len(row) != len(columns):
                raise InputError(
                    f"{path}:{number}: {len(row) - 2} negatives where the first row has {len(columns) - 2}; "
                    "give every row the same number"
                )
            texts.append(row)
            if len(texts) == _BATCH_ROWS:  # Arrow holds a text in a fraction of the memory of Python
                parts.append(Dataset.from_dict(_columns(columns, texts)))
                texts = []
    if texts:
        parts.append(Dataset.from_dict(_columns(columns, texts)))
    if not parts:
        raise InputError(
            f"{', '.join(map(str, paths)) or 'no file given'}: no training pairs; give at least one row"
        )
    return concatenate_datasets(parts)


def _parquet_rows(path: Path, columns: Sequence[str] | None = None) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            present = (
                None if columns is None else [name for name in file.schema_arrow.names if name in columns]
            )
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=present):
                # A batch without columns has rows, but nothing to show for them.
                for record in batch.to_pylist() if batch.num_columns else [{}] * batch.num_rows:
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{path}:{number + 1}: cannot be read as parquet ({reason})") from None


def _dataset_rows(path: Path, columns: Sequence[str]) -> Rows:
    from datasets import Dataset, load_from_disk

    dataset = load_from_disk(str(path))
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{path}: holds several splits; give one of {', '.join(str(path / s) for s in dataset)}"
        )
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
        if (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            return path, partial(_dataset_rows, path, columns)
        for corpus in (path / "corpus.jsonl", path / "corpus.jsonl.gz"):
            if corpus.exists():
                return corpus, partial(read_records, corpus)
        raise InputError(f"{path}: neither a BEIR folder (no corpus.jsonl[.gz]) nor a saved dataset")
    name = path.name.removesuffix(".gz")
    if name.endswith(".txt"):
        return path, lambda: ((number, {text_fields[0]: line}) for number, line in read_lines(path))
    if name.endswith((".jsonl", ".json")):
        return path, partial(read_records, path)
    if path.suffix == ".parquet":
        return path, partial(_parquet_rows, path, columns)
    raise InputError(f"{path}: unknown kind of corpus; give .jsonl[.gz], .parquet, .txt[.gz] or a folder")


def _identifier(path: Path, number: int, record: dict[str, Any]) -> str:
    for key in ("_id", "id"):
        if key in record:
            value = record[key]
            if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
                return str(value)
            raise InputError(f"{path}:{number}: {key} is {value!r:.40}; give a string or an integer")
    return str(number)


def _text(path: Path, number: int, record: dict[str, Any], fields: Sequence[str]) -> str:
    present = {name: record[name] for name in fields if record.get(name) is not None}
    if not present:
        raise InputError(
            f"{path}:{number}: none of the fields {', '.join(fields)}; name the text with text_fields"
        )
    for name, value in present.items():
        if not isinstance(value, str):
            raise InputError(f"{path}:{number}: {name} is {type(value).__name__}; give a string")
    return " ".join(value for value in present.values() if value)


def _refuse_duplicates(source: Path, hashes: array[int], rows: Callable[[], Rows]) -> None:
    values, counts = np.unique(np.frombuffer(hashes, np.int64), return_counts=True)
    if len(values) == len(hashes):
        return
    # Two ids may share a hash by chance: read again, and compare the ids themselves.
    suspects = set(values[counts > 1].tolist())
    lines: dict[str, int] = {}
    for number, record in rows():
        identifier = _identifier(source, number, record)
        if hash(identifier) not in suspects:
            continue
        if identifier in lines:
            raise InputError(
                f"{source}:{number}: id {identifier!r} occurs already in line {lines[identifier]}"
            )
        lines[identifier] = number


def _pair(path: Path, number: int, record: dict[str, Any]) -> list[str]:
    """Query, positive and negatives of a row."""
    row = [("query", record.get("query")), ("positive", record.get("positive"))]
    negative, negatives = record.get("negative"), record.get("negatives")
    if negative is not None and negatives is not None:
        raise InputError(f"{path}:{number}: has both negative and negatives; give one of them")
    if negative is not None:
        row.append(("negative", negative))
    elif isinstance(negatives, list):
        row += [(f"negatives[{index}]", text) for index, text in enumerate(negatives)]
    elif negatives is not None:
        raise InputError(f"{path}:{number}: negatives is {type(negatives).__name__}; give a list of texts")
    for name, text in row:
        if not isinstance(text, str) or not text.strip():
            problem = "is missing" if text is None else "is empty" if text == "" else f"is {text!r:.40}"
            raise InputError(f"{path}:{number}: {name} {problem}; give a text")
    return [cast(str, text) for _, text in row]


def _pair_columns(negatives: int) -> list[str]:
    names = ["negative"] if negatives == 1 else [f"negative_{index + 1}" for index in range(negatives)]
    return ["query", "positive", *names]


def _columns(names: list[str], rows: list[list[str]]) -> dict[str, list[str]]:
    return {name: [row[index] for row in rows] for index, name in enumerate(names)}
