"""Files mapped into memory without a file descriptor each.

An index has seven arrays a segment. A map of Python's keeps its file open, so that a hundred small indexes,
or one of many segments, would end in "Too many open files" (macOS allows 256).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def map_file(path: Path, size: int) -> NDArray[np.uint8]:
    """Map the first ``size`` > 0 bytes of a file, read-only, for as long as the array is used.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The system refuses; the error names the file.
    """
    with path.open("rb") as file:
        try:
            return _map(file.fileno(), size)
        except OSError as error:
            error.filename = str(path)
            raise


def _map(descriptor: int, size: int) -> NDArray[np.uint8]:
    options: dict[str, Any] = {}
    if os.name == "posix":
        if sys.version_info < (3, 13):
            return _map_by_libc(descriptor, size)
        options = {"trackfd": False}
    return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ, **options), dtype=np.uint8)


def _map_by_libc(descriptor: int, size: int) -> NDArray[np.uint8]:
    """What ``trackfd=False`` does since Python 3.13."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    buffer = (ctypes.c_ubyte * size).from_address(address)
    weakref.finalize(buffer, libc.munmap, address, size)
    array: NDArray[np.uint8] = np.frombuffer(memoryview(buffer), dtype=np.uint8)
    array.flags.writeable = False  # a write would end the process
    return array
