"""Reading rows from files, strictly: every complaint names the file and the line."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

from st_l0.errors import InputError, reason
from st_l0.utils.reading import refuse_device

Rows = Iterator[tuple[int, dict[str, Any]]]

_BATCH_ROWS = 4096
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


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
    refuse_device(path)
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
            problem = str(error) or "nested too deeply"
            raise InputError(
                f"{path}:{number}: invalid JSON ({problem}); give one JSON object a line"
            ) from None
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise InputError(
                f"{path}:{number}: expected a JSON object, found {kind}; give one JSON object a line"
            )
        yield number, record


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON objects, one a line, as `read_records` reads them; gives their number."""
    written = 0
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for written, record in enumerate(records, 1):  # noqa: B007
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return written


def read_parquet(path: str | Path, columns: Sequence[str] | None = None) -> Rows:
    """Stream the rows of a parquet file.

    Args:
        path: A ``.parquet`` file.
        columns: Columns to read, those that the file has; ``None`` reads all.

    Yields:
        Row number, from 1, and the row.

    Raises:
        InputError: there is no such file, or it is not valid parquet. The message starts with ``path:row``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
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
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the latter two: odd values
        raise InputError(f"{path}:{number + 1}: cannot be read as parquet ({reason(error)})") from None
