"""One snapshot of an index: its segments, addressed as one row of positions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from st_l0.index.embedded.bm25 import Statistics, WordSettings
from st_l0.index.embedded.segment import LiveSegment
from st_l0.index.protocol import Hits, Id


@dataclass(frozen=True)
class Snapshot:
    """One published snapshot of an index; it never changes, so a search needs no lock."""

    vocabulary_size: int | None = None
    id_kind: str | None = None  # "str", "int", or None before the first document
    metadata: dict[str, Any] = field(default_factory=dict)
    segments: tuple[LiveSegment, ...] = ()
    words: WordSettings | None = None
    _spare: list[NDArray[np.float32]] = field(default_factory=list, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # Statistics hold views of postings, which would be copied.
        return {name: value for name, value in self.__dict__.items() if name != "statistics"}

    def __len__(self) -> int:
        return sum(len(live) for live in self.segments)

    @cached_property
    def bases(self) -> NDArray[np.int64]:
        """Position of each segment's first row; the last entry is the number of all rows."""
        return np.cumsum([0] + [len(live.segment) for live in self.segments])

    @cached_property
    def statistics(self) -> Statistics:
        """Those of the words, in an index that has words."""
        assert self.words is not None
        return Statistics(self.segments, self.words.bm25)

    @contextmanager
    def sums(self) -> Iterator[NDArray[np.float32]]:
        """One float a row, for as long as one search needs it.

        They are lent again: the system takes longer to find new memory than a search takes.
        """
        try:
            scores = self._spare.pop()
        except IndexError:
            scores = np.empty(self.bases[-1], dtype=np.float32)
        try:
            yield scores
        finally:
            self._spare.append(scores)

    @cached_property
    def visible(self) -> NDArray[np.float32] | None:
        """1 for positions of documents, 0 for deleted ones, shape ``(rows,)``; None if none are deleted."""
        return None if len(self) == self.bases[-1] else self.kept.astype(np.float32)

    @cached_property
    def kept(self) -> NDArray[np.bool_]:
        """Which positions hold a document that is not deleted, shape ``(rows,)``."""
        return np.concatenate([np.zeros(0, dtype=bool), *(live.kept() for live in self.segments)])

    def locate(self, ids: Sequence[Id]) -> dict[Id, int]:
        """Id → position, of those ids that are in the index."""
        found: dict[Id, int] = {}
        for live, base in zip(self.segments, self.bases.tolist(), strict=False):
            row_of = live.segment.row_of
            positions = ((id, base + row_of[id]) for id in ids if id in row_of)
            found.update((id, position) for id, position in positions if self.kept[position])
        return found

    def split(self, positions: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.bool_], NDArray[Any]]]:
        """For each segment met: its number, which of ``positions`` lie in it, and their rows there."""
        numbers = np.searchsorted(self.bases, positions, side="right") - 1
        for number in np.flatnonzero(np.bincount(numbers)).tolist():
            inside = numbers == number
            yield number, inside, positions[inside] - self.bases[number]

    def take_ids(self, positions: NDArray[np.int64]) -> NDArray[Any]:
        """The ids at some positions: int64, or objects (str)."""
        if len(self.segments) == 1:
            return self.segments[0].segment.take_ids(positions)
        ids = np.empty(len(positions), dtype=object if self.id_kind == "str" else np.int64)
        for number, inside, rows in self.split(positions):
            ids[inside] = self.segments[number].segment.take_ids(rows)
        return ids

    def as_hits(self, found: Sequence[tuple[NDArray[Any], NDArray[np.float32]]]) -> Iterator[Hits]:
        """The (positions, scores) of each query with their ids, looked up for all queries in one go."""
        ends = np.cumsum([len(positions) for positions, _ in found]).tolist()
        ids = self.take_ids(np.concatenate([np.zeros(0, dtype=np.int64), *(item[0] for item in found)]))
        has_texts = any(live.segment.texts is not None for live in self.segments)
        for end, (positions, scores) in zip(ends, found, strict=True):
            texts = _Texts(self, positions) if has_texts else None
            yield Hits(ids[end - len(scores) : end], scores, texts)

    def without(self, positions: Iterable[int]) -> list[LiveSegment]:
        """The segments, with the documents at some positions deleted."""
        segments = list(self.segments)
        for number, _, rows in self.split(np.fromiter(positions, dtype=np.int64)):
            segments[number] = segments[number].without(rows)
        return segments


class _Texts(Sequence["str | None"]):
    """The texts of some positions, read on access."""

    def __init__(self, snapshot: Snapshot, positions: NDArray[np.int64]) -> None:
        self._snapshot, self._positions = snapshot, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, item: int) -> str | None: ...
    @overload
    def __getitem__(self, item: slice) -> _Texts: ...
    def __getitem__(self, item: int | slice) -> str | _Texts | None:
        if isinstance(item, slice):
            return _Texts(self._snapshot, self._positions[item])
        ((number, _, rows),) = self._snapshot.split(self._positions[[item]])
        texts = self._snapshot.segments[number].segment.texts
        return None if texts is None else texts.take(rows)[0]
