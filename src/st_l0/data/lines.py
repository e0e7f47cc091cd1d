"""Reading rows from files, strictly: every complaint names the file and the line."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from st_l0.data.parts import archive_of, is_folder, is_there, open_bytes
from st_l0.errors import InputError, reason
from st_l0.utils.paths import input_path, is_remote
from st_l0.utils.reading import refuse_device

Rows = Iterator[tuple[int, dict[str, Any]]]

_BATCH_ROWS = 4096
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Stream the lines of a UTF-8 text file, compressed if its name ends in ``.gz``.

    It may be in a zip archive, or at an address, see `st_l0.data.parts`.

    Yields:
        Line number, from 1, and the line without its end. Only line feeds end a line.

    Raises:
        InputError: there is no such file, it is a folder, or it is not UTF-8 or not valid gzip. The message
            starts with ``path:line``.
    """
    path = input_path(path)
    if not is_there(path):
        raise InputError(f"{path}: no such file; check the path")
    if is_folder(path):
        raise InputError(f"{path}: is a folder; give a file")
    refuse_device(path)
    number = 0
    try:
        with open_bytes(path) as stream:
            # Bytes, so that only "\n" ends a line and a bad byte is reported with its line.
            for number, raw in enumerate(stream, 1):
                yield number, raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}:{number}: not UTF-8 ({error.reason}); convert the file to UTF-8") from None
    except (EOFError, zlib.error, OSError, BadZipFile, RuntimeError) as error:  # the last: a password
        cure = "start again" if is_remote(path) and isinstance(error, OSError) else "the file may be damaged"
        raise InputError(f"{path}:{number + 1}: cannot be read ({error}); {cure}") from None


def read_records(path: str | Path) -> Rows:
    """Stream the JSON objects of a file that holds one a line; blank lines are skipped.

    Args:
        path: A file of JSON lines (``.jsonl``, ``.json``), compressed if its name ends in ``.gz``. A
            ``.json`` may also be one array of objects, read at once.

    Yields:
        Line number (in an array, row number), from 1, and the object.

    Raises:
        InputError: there is no such file, it is a folder, it is not UTF-8 or not valid gzip, or a line is not
            one JSON object. The message starts with ``path:line``.
    """
    lines: Iterator[tuple[int, Any]] = read_lines(path)
    if str(path).lower().removesuffix(".gz").endswith(".json"):
        first = next(((number, line) for number, line in lines if line and not line.isspace()), None)
        lines = chain([] if first is None else [first], lines)
        if first is not None and first[1].lstrip().startswith("["):
            lines = enumerate(_array(path, "\n".join(line for _, line in lines)), 1)
    for number, line in lines:
        record = line
        if isinstance(line, str):
            if not line or line.isspace():
                continue
            record = _loads(path, number, line, "one JSON object a line")
        if not isinstance(record, dict):
            kind = type(record).__name__
            raise InputError(
                f"{path}:{number}: expected a JSON object, found {kind}; give one JSON object a line"
            )
        yield number, record


def _array(path: str | Path, text: str) -> list[Any]:
    values = _loads(path, 1, text, "one array of JSON objects, or one object a line")
    return [[value] if isinstance(value, str) else value for value in values]  # a text is no object either


def _loads(path: str | Path, number: int, text: str, wanted: str) -> Any:
    try:
        value = json.loads(text)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()  # half a pair is no text: tokenizers refuse it
    except (ValueError, RecursionError) as error:
        problem = str(error) or "nested too deeply"
        raise InputError(f"{path}:{number}: invalid JSON ({problem}); give {wanted}") from None
    return value


def write_records(path: str | Path, records: Iterable[Mapping[str, Any]]) -> int:
    """Write JSON objects, one a line, as `read_records` reads them; gives their number."""
    written = 0
    with Path(path).open("w", encoding="utf-8", newline="\n") as file:
        for written, record in enumerate(records, 1):  # noqa: B007
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
    return written


def read_parquet(
    path: str | Path, choose: Callable[[Sequence[str]], list[str] | None] = lambda names: None
) -> Rows:
    """Stream the rows of a parquet file.

    Args:
        path: A ``.parquet`` file.
        choose: Which of the columns, all of whose names it gets, are read; ``None``: all.

    Yields:
        Row number, from 1, and the row.

    Raises:
        InputError: there is no such file, or it is not valid parquet. The message starts with ``path:row``.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = input_path(path)
    if not is_there(path) or is_folder(path):
        raise InputError(f"{path}: no such file; check the path")
    number = 0
    try:
        # Which part is read next is not known, so what is in an archive is read at once.
        packed = archive_of(path) is not None
        source = BytesIO(open_bytes(path).read()) if packed else open_bytes(path) if is_remote(path) else path
        with pq.ParquetFile(source) as file:
            columns = choose(file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
                for record in batch.to_pylist():
                    number += 1
                    yield number, record
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the latter two: odd values
        raise InputError(f"{path}:{number + 1}: cannot be read as parquet ({reason(error)})") from None


def read_arrow(path: str | Path) -> Rows:
    """Stream the rows of an Arrow file, such as ``datasets`` keeps in its cache; errors as `read_parquet`."""
    import pyarrow as pa

    path = input_path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    number = 0
    try:
        with pa.PythonFile(open_bytes(path)) if is_remote(path) else pa.OSFile(str(path)) as file:
            try:
                reader = pa.ipc.open_stream(file)
            except pa.ArrowInvalid:  # the other of the two layouts
                opened = pa.ipc.open_file(file)
                reader = (opened.get_batch(index) for index in range(opened.num_record_batches))
            for batch in reader:
                for start in range(0, len(batch), _BATCH_ROWS):
                    for record in batch.slice(start, _BATCH_ROWS).to_pylist():
                        number += 1
                        yield number, record
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # the latter two: odd values
        raise InputError(f"{path}:{number + 1}: cannot be read as Arrow ({reason(error)})") from None
