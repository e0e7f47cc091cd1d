"""Ids and texts in two arrays: bytes back to back, and where each begins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_l0.index.embedded.checksums import Guard, damaged

_NO_TEXT = b"\xff"  # a byte that UTF-8 never uses


class Strings:
    """Strings back to back in UTF-8; item ``i`` lies in ``blob[offsets[i]:offsets[i + 1]]``.

    Args:
        blob: The bytes.
        offsets: From 0 to ``len(blob)``.
        guards: Those of both, in this order, if they come from files and are not proven yet.
    """

    def __init__(
        self,
        blob: NDArray[np.uint8],
        offsets: NDArray[np.int64],
        guards: tuple[Guard, Guard] | None = None,
    ) -> None:
        self.blob = blob
        self.offsets = offsets
        self._guards = guards
        self._proven = guards is None  # all of both
        self._wild = guards is not None  # the offsets were not proven yet

    @classmethod
    def encode(cls, values: Iterable[str | None]) -> Strings:
        """Put strings back to back."""
        # "surrogatepass": JSON can hold lone surrogates, and what was stored must come back.
        items = [_NO_TEXT if value is None else value.encode("utf-8", "surrogatepass") for value in values]
        offsets = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum(np.fromiter(map(len, items), dtype=np.int64, count=len(items)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(items), dtype=np.uint8), offsets)

    def take(self, rows: NDArray[np.integer[Any]]) -> list[str | None]:
        """The strings of some rows; None where there is none.

        Raises:
            InputError: The file that they come from is damaged.
        """
        if not self._proven:
            self._prove_rows(rows)
        view = self.blob.data
        bounds = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        items = (view[start:stop] for start, stop in bounds)
        try:
            return [None if item == _NO_TEXT else str(item, "utf-8", "surrogatepass") for item in items]
        except UnicodeDecodeError as error:
            if self._guards is None:
                raise
            raise damaged(self._guards[0].path, "not UTF-8") from error

    def prove(self) -> None:
        """Prove all that is not proven yet; errors as for `take`."""
        if self._guards is not None and not self._proven:
            blob, offsets = self._guards
            self._prove_offsets(offsets)
            blob.prove()
            self._proven = True

    def _prove_rows(self, rows: NDArray[np.integer[Any]]) -> None:
        assert self._guards is not None
        blob, offsets = self._guards
        self._prove_offsets(offsets)
        for start, stop in zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True):
            blob.prove(start, stop)
        self._proven = not blob.pending

    def _prove_offsets(self, guard: Guard) -> None:
        if self._wild:
            guard.prove()
            if (self.offsets[1:] < self.offsets[:-1]).any():
                raise damaged(guard.path, "offsets that descend")
            self._wild = False
