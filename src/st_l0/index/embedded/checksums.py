"""Checksums of arrays in files: taken block by block while an array is written, compared before it is used.

They find damage (a flipped bit, a file of another index), not forgery. What they vouch for is still proven to
be in range where a wrong number could lead astray, see `segment`.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_l0.errors import InputError

# Bytes of a block, part of the format: small enough that a first search reads little more than it needs,
# large enough that the checksums of a million documents are a few kilobytes of the manifest.
BLOCK = 1 << 20


def damaged(path: Path, reason: str) -> InputError:
    """The error for a file of an index that cannot be used."""
    return InputError(f"{path} is damaged ({reason}): restore the index from a copy or build it again")


class Checksums:
    """The CRC-32 of each block of an array that grows at its end; the last block may be shorter."""

    def __init__(self) -> None:
        self._full: list[int] = []
        self._last = 0
        self._filled = 0

    def append(self, array: NDArray[Any]) -> None:
        """Go on with more items, contiguous ones."""
        data = array.view(np.uint8)
        start = 0
        while start < len(data):
            piece = data[start : start + BLOCK - self._filled].data
            self._last = zlib.crc32(piece, self._last)
            self._filled += len(piece)
            start += len(piece)
            if self._filled == BLOCK:
                self._full.append(self._last)
                self._last = self._filled = 0

    def values(self) -> list[int]:
        """One number a block, so far."""
        return [*self._full, self._last] if self._filled else list(self._full)


class Guard:
    """An array of a file, whose blocks are compared with their checksums once, before they are first used.

    Threads may share it: at worst two of them read the same block.

    Args:
        path: The file, for messages.
        array: Its items.
        checksums: What `Checksums` gave; None for a file that was written before there were any.

    Raises:
        InputError: There are too few checksums, or too many.
    """

    def __init__(self, path: Path, array: NDArray[Any], checksums: Sequence[int] | None) -> None:
        self.path = path
        self.array = array
        self._checksums = () if checksums is None else checksums
        self.pending = set(range(len(self._checksums)))
        if checksums is not None and len(checksums) != -(-array.nbytes // BLOCK):
            raise damaged(path, "its length is not that of its checksums")

    def prove(self, start: int = 0, stop: int | None = None) -> None:
        """Compare the blocks that items ``start`` to ``stop`` lie in, all by default.

        Raises:
            InputError: One of them was changed since it was written.
        """
        if not self.pending:
            return
        size = BLOCK // self.array.itemsize
        stop = len(self.array) if stop is None else stop
        for block in range(start // size, -(-stop // size)):
            if block in self.pending:
                if zlib.crc32(self.array[block * size : (block + 1) * size].data) != self._checksums[block]:
                    raise damaged(self.path, "its checksum differs")
                self.pending.discard(block)
