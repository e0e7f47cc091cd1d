"""One-dimensional arrays in npy files: written piece by piece, memory-mapped when read."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from st_l0.index.embedded.checksums import Checksums, Guard, damaged
from st_l0.index.embedded.mapping import map_file
from st_l0.utils.files import sync

_HEADER_BYTES = 128
DTYPES = {
    "indptr": "<i8",
    "rows": "<i4",
    "weights": "<f4",
    "ids": "<i8",
    "id_bytes": "|u1",
    "id_offsets": "<i8",
    "text_bytes": "|u1",
    "text_offsets": "<i8",
    "word_bytes": "|u1",
    "word_offsets": "<i4",
    "word_indptr": "<i4",
    "word_rows": "<i4",
    "word_counts": "|u1",
    "word_large_places": "<i4",
    "word_large_counts": "<i4",
    "word_lengths": "<i4",
}


def _header(dtype: str, length: int) -> bytes:
    """The npy header of a 1-D array, of fixed size so that it can be written last."""
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({length},), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", _HEADER_BYTES - 10) + text.ljust(117).encode() + b"\n"


def read_array(path: Path, dtype: str, length: int) -> NDArray[Any]:
    """Map an npy file that must hold exactly ``length`` items of ``dtype``.

    Raises:
        InputError: the file holds something else, or less.
        FileNotFoundError: there is no such file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except (IsADirectoryError, NotADirectoryError) as error:
        raise damaged(path, str(error.strerror)) from error
    if header != _header(dtype, length) or size != _HEADER_BYTES + length * np.dtype(dtype).itemsize:
        raise damaged(path, f"{size} bytes")
    if length == 0:
        return np.empty(0, dtype=dtype)
    return map_file(path, size)[_HEADER_BYTES:].view(dtype)


def open_array(path: Path, dtype: str, length: int, checksums: Sequence[int] | None) -> Guard:
    """Map an npy file, to be compared with its checksums; errors as for `read_array`."""
    return Guard(path, read_array(path, dtype, length), checksums)


def write_array(path: Path, array: NDArray[Any]) -> list[int]:
    """Write a 1-D array as an npy file, flush it to the disk, and give its checksums."""
    checksums = Checksums()
    checksums.append(array)
    with path.open("wb") as file:
        file.write(_header(array.dtype.str, len(array)))
        file.write(array.data)
    sync(path)
    return checksums.values()


class Sink:
    """One array that grows at its end, in a file or in memory."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self._path = None if folder is None else folder / f"{name}.npy"
        self._dtype = DTYPES[name]
        self._stream: BinaryIO = BytesIO() if self._path is None else self._path.open("wb")
        self._stream.write(_header(self._dtype, 0))
        self.length = 0
        self.checksums = Checksums()

    def append(self, array: NDArray[Any]) -> None:
        """Write more items."""
        # Written, not mapped: a full disk then raises an error instead of killing the process.
        items = np.ascontiguousarray(array, dtype=self._dtype)
        self._stream.write(items.data)
        if self._path is not None:
            self.checksums.append(items)
        self.length += len(items)

    def finish(self) -> NDArray[Any]:
        """Write the header, flush to the disk, and map the result."""
        self._stream.seek(0)
        self._stream.write(_header(self._dtype, self.length))
        if self._path is None:
            assert isinstance(self._stream, BytesIO)
            return np.frombuffer(self._stream.getbuffer(), dtype=self._dtype, offset=_HEADER_BYTES)
        self.close()
        sync(self._path)
        return read_array(self._path, self._dtype, self.length)

    def close(self) -> None:
        """Close the file, finished or not."""
        if self._path is not None:
            self._stream.close()


class Sinks:
    """The arrays of one segment while it is written."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._sinks: dict[str, Sink] = {}

    def __getitem__(self, name: str) -> Sink:
        if name not in self._sinks:
            self._sinks[name] = Sink(self._folder, name)
        return self._sinks[name]

    def finish(self) -> dict[str, NDArray[Any]]:
        """All arrays, flushed and mapped."""
        return {name: sink.finish() for name, sink in self._sinks.items()}

    def checksums(self) -> dict[str, list[int]]:
        """Those of all arrays, where they are files."""
        return {name: sink.checksums.values() for name, sink in self._sinks.items()}

    def close(self) -> None:
        """Close all files, finished or not."""
        for sink in self._sinks.values():
            sink.close()
