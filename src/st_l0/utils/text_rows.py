"""Texts as short digests, and which row each of them has: the texts themselves need not be held."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

DIGEST = 16


def text_key(text: str, side: str) -> bytes:
    """A digest of a text and what it is taken for, such as ``"document"``."""
    # numpy's S16 drops trailing zero bytes, so a digest must not end in one.
    digest = hashlib.blake2b(f"{side}\0{text}".encode(), digest_size=DIGEST).digest()
    return digest[:-1] + bytes([digest[-1] or 1])


def as_keys(keys: Iterable[bytes]) -> np.ndarray:
    """Digests as an array, ``(texts,)``."""
    return np.frombuffer(b"".join(keys), dtype=f"S{DIGEST}")


class TextRows:
    """Finds the row of a text among those that have one.

    Args:
        keys: What `text_key` makes of each text, in the order of the rows; all different. Ascending ones are
            not copied, so that those of a file stay there.
    """

    def __init__(self, keys: np.ndarray) -> None:
        self._order = None if (keys[1:] > keys[:-1]).all() else np.argsort(keys, kind="stable")
        self._keys = keys if self._order is None else keys[self._order]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, texts: Iterable[str], side: str) -> np.ndarray:
        """The row of each text, int64 ``(texts,)``; -1 where it has none."""
        keys = as_keys(text_key(text, side) for text in texts)
        if not len(self._keys):
            return np.full(len(keys), -1)
        places = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        rows = places if self._order is None else self._order[places]
        return np.where(self._keys[places] == keys, rows, -1)
