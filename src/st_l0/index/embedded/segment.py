"""Segments: immutable blocks of documents, held as postings in npy files or in memory.

What was read from files is proven once, before its first use: a row beyond the documents would make the
kernel write outside of its array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.arrays import DTYPES, Sink, Sinks, open_array
from st_l0.index.embedded.checksums import Guard, damaged
from st_l0.index.embedded.strings import Strings
from st_l0.index.protocol import Id
from st_l0.utils.files import sync

_CHUNK_POSTINGS = 1 << 22  # merging works on that many postings at a time, 32 MB
_FEW_POSTINGS = 1 << 21  # with so few, the first query lies in most blocks: all are proven then


class Segment:
    """An immutable block of documents.

    Attributes:
        name: Name of its folder; None for a segment in memory.
        checksums: Those of each array; None in memory, and for files from before there were any.
        indptr, rows, weights: The postings, see `kernel.accumulate`; the rows of a token ascend.
        ids: One id a document, int64 or strings.
        texts: One text a document, or None if none has one.
    """

    def __init__(
        self,
        arrays: Mapping[str, NDArray[Any]],
        name: str | None = None,
        checksums: dict[str, list[int]] | None = None,
        guards: Mapping[str, Guard] | None = None,
    ) -> None:
        self.name = name
        self.checksums = checksums
        self.indptr: NDArray[np.int64] = arrays["indptr"]
        self.rows: NDArray[np.int32] = arrays["rows"]
        self.weights: NDArray[np.float32] = arrays["weights"]
        self._guards = guards or {}  # of arrays that this process has not written itself
        self._unproven = np.ones(len(self.indptr) - 1, dtype=bool) if guards else None  # tokens

        def strings(kind: str) -> Strings:
            names = (f"{kind}_bytes", f"{kind}_offsets")
            pair = (guards[names[0]], guards[names[1]]) if guards else None
            return Strings(arrays[names[0]], arrays[names[1]], pair)

        self.ids: NDArray[np.int64] | Strings = arrays["ids"] if "ids" in arrays else strings("id")
        self.texts = strings("text") if "text_bytes" in arrays else None

    @classmethod
    def build(
        cls, ids: Sequence[Id], matrix: sp.csr_matrix, texts: Sequence[str | None] | None = None
    ) -> Segment:
        """A segment in memory from checked ids, vectors of shape ``(documents, vocabulary)`` and texts."""
        columns = matrix.tocsc()
        columns.sort_indices()
        arrays: dict[str, NDArray[Any]] = {
            "indptr": columns.indptr.astype(np.int64),
            "rows": columns.indices.astype(np.int32, copy=False),
            "weights": columns.data,
        }
        if ids and isinstance(ids[0], str):
            encoded = Strings.encode(map(str, ids))
            arrays |= {"id_bytes": encoded.blob, "id_offsets": encoded.offsets}
        else:
            arrays["ids"] = np.array(ids, dtype=np.int64)
        if texts is not None:
            encoded = Strings.encode(texts)
            arrays |= {"text_bytes": encoded.blob, "text_offsets": encoded.offsets}
        return cls(arrays)

    @classmethod
    def open(cls, folder: Path, vocabulary_size: int, entry: Mapping[str, Any]) -> Segment:
        """Map a segment's files; ``entry`` is what `describe` gave.

        Raises:
            InputError: A file is damaged, as far as that shows without reading the large ones.
            FileNotFoundError: A file is missing.
        """
        lengths, checksums = array_lengths(vocabulary_size, entry), entry.get("checksums")
        guards = {
            name: open_array(
                folder / f"{name}.npy", DTYPES[name], length, None if checksums is None else checksums[name]
            )
            for name, length in lengths.items()
        }
        arrays = {name: guard.array for name, guard in guards.items()}
        for name, last in (("indptr", "rows"), ("id_offsets", "id_bytes"), ("text_offsets", "text_bytes")):
            if name in arrays and (arrays[name][0] != 0 or arrays[name][-1] != lengths[last]):
                raise damaged(guards[name].path, "offsets out of range")
        guards["indptr"].prove()
        if (arrays["indptr"][1:] < arrays["indptr"][:-1]).any():
            raise damaged(guards["indptr"].path, "offsets that descend")
        return cls(arrays, folder.name, checksums, guards)

    def describe(self) -> dict[str, Any]:
        """The sizes that `open` needs."""
        return {
            "name": self.name,
            "documents": len(self),
            "postings": len(self.rows),
            "id_bytes": len(self.ids.blob) if isinstance(self.ids, Strings) else None,
            "text_bytes": None if self.texts is None else len(self.texts.blob),
            "checksums": self.checksums,
        }

    def prove_lists(self, tokens: NDArray[np.integer[Any]]) -> None:
        """Prove the postings of some tokens, unless that was done before.

        Threads may do so at once: at worst two of them prove the same.

        Raises:
            InputError: A file is damaged.
        """
        unproven = self._unproven
        if unproven is None or 1 not in unproven.take(tokens).tobytes():  # the fastest way to ask, 1 µs
            return
        if len(self.rows) <= _FEW_POSTINGS:
            self._prove_all_postings()
            return
        for token in tokens[unproven[tokens]].tolist():
            self._prove_postings(token, token + 1)
            unproven[token] = False

    def prove(self) -> None:
        """Prove all that is not proven yet; errors as for `prove_lists`."""
        if self._unproven is not None:
            self._prove_all_postings()
        for column in (self.ids, self.texts):
            if isinstance(column, Strings):
                column.prove()
        if "ids" in self._guards:
            self._guards["ids"].prove()

    def _prove_all_postings(self) -> None:
        for first, last in _chunks(self.indptr):
            self._prove_postings(first, last)
        self._unproven = None

    def _prove_postings(self, first: int, last: int) -> None:
        """Prove the postings of tokens ``first`` to ``last``."""
        start, stop = self.indptr[[first, last]].tolist()
        if start == stop:
            return
        for name in ("rows", "weights"):
            self._guards[name].prove(start, stop)
        rows = self.rows[start:stop]
        ascends = rows[1:] > rows[:-1]
        heads = self.indptr[first + 1 : last] - start  # where the list of the next token begins
        ascends[heads[(heads > 0) & (heads < len(rows))] - 1] = True
        if rows.min() < 0 or rows.max() >= len(self) or not ascends.all():
            raise damaged(self._guards["rows"].path, "rows out of range or order")
        if not np.isfinite(self.weights[start:stop]).all():
            raise damaged(self._guards["weights"].path, "a weight that is not finite")

    def __len__(self) -> int:
        return len(self.ids.offsets) - 1 if isinstance(self.ids, Strings) else len(self.ids)

    @property
    def size(self) -> int:
        """Postings and documents, the measure by which segments are merged."""
        return len(self.rows) + len(self)

    @cached_property
    def all_ids(self) -> NDArray[Any]:
        """The ids of all rows: int64, or objects (str)."""
        if not isinstance(self.ids, Strings):
            if "ids" in self._guards:
                self._guards["ids"].prove()
            return self.ids
        return np.array(self.ids.take(np.arange(len(self))), dtype=object)

    @cached_property
    def row_of(self) -> dict[Id, int]:
        """Id → row; built on first need, so that opening stays instant."""
        return dict(zip(self.all_ids.tolist(), range(len(self)), strict=True))

    def take_ids(self, rows: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Ids of some rows: int64, or objects (str)."""
        if isinstance(self.ids, Strings) and "all_ids" not in self.__dict__ and len(rows) < len(self):
            return np.array(self.ids.take(rows), dtype=object)
        ids: NDArray[Any] = self.all_ids[rows]
        return ids


def array_lengths(vocabulary_size: int, entry: Mapping[str, Any]) -> dict[str, int]:
    """The arrays of a segment and their lengths; ``entry`` is what `Segment.describe` gave."""
    documents, postings = entry["documents"], entry["postings"]
    lengths = {"indptr": vocabulary_size + 1, "rows": postings, "weights": postings}
    if entry["id_bytes"] is None:
        lengths["ids"] = documents
    else:
        lengths |= {"id_bytes": entry["id_bytes"], "id_offsets": documents + 1}
    if entry["text_bytes"] is not None:
        lengths |= {"text_bytes": entry["text_bytes"], "text_offsets": documents + 1}
    return lengths


class LiveSegment:
    """A segment and the rows of it that were deleted (ascending; None if none were).

    ``deleted_name`` is the file that holds them, None if they are not on the disk; ``deleted_checksums`` are
    its checksums, if it has any.
    """

    def __init__(
        self,
        segment: Segment,
        deleted: NDArray[np.int32] | None = None,
        deleted_name: str | None = None,
        deleted_checksums: list[int] | None = None,
    ) -> None:
        self.segment = segment
        self.deleted = deleted
        self.deleted_name = deleted_name
        self.deleted_checksums = deleted_checksums

    def __len__(self) -> int:
        return len(self.segment) - (0 if self.deleted is None else len(self.deleted))

    def without(self, rows: NDArray[np.integer[Any]]) -> LiveSegment:
        """The same segment with more rows deleted."""
        earlier = np.empty(0, dtype=np.int32) if self.deleted is None else self.deleted
        return LiveSegment(self.segment, np.union1d(earlier, rows.astype(np.int32)))

    def kept(self) -> NDArray[np.bool_]:
        """Which rows are not deleted, shape ``(rows,)``."""
        kept = np.ones(len(self.segment), dtype=bool)
        if self.deleted is not None:
            kept[self.deleted] = False
        return kept

    def runs(self) -> Iterator[tuple[int, int]]:
        """The rows that are not deleted, as ranges."""
        start = 0
        for row in [] if self.deleted is None else self.deleted.tolist():
            if row > start:
                yield start, row
            start = row + 1
        if start < len(self.segment):
            yield start, len(self.segment)


def write_segment(segments: Sequence[LiveSegment], folder: Path | None) -> Segment:
    """Write the documents of ``segments``, in order and without the deleted ones, as one new segment.

    Args:
        segments: At least one; all of one vocabulary and one kind of id.
        folder: An empty folder, whose files are flushed to the disk; None keeps the segment in memory.

    Raises:
        InputError: a file of ``segments`` is damaged.
        OSError: the disk is full, or cannot be written; ``folder`` is then unfinished.
    """
    for live in segments:
        live.segment.prove()  # damage must not be copied to where the checksums vouch for it
    sinks = Sinks(folder)
    try:
        for name in ("indptr", "rows", "weights"):
            _ = sinks[name]
        _write_postings(segments, sinks)
        if isinstance(segments[0].segment.ids, Strings):
            _write_strings(
                segments, [live.segment.ids for live in segments], sinks["id_bytes"], sinks["id_offsets"]
            )
        else:
            for live in segments:
                for start, stop in live.runs():
                    sinks["ids"].append(live.segment.ids[start:stop])  # type: ignore[index]
        texts = [live.segment.texts for live in segments]
        if any(column is not None for column in texts):
            _write_strings(segments, texts, sinks["text_bytes"], sinks["text_offsets"])
        arrays = sinks.finish()
    finally:
        sinks.close()
    if folder is None:
        return Segment(arrays)
    sync(folder)
    return Segment(arrays, folder.name, sinks.checksums())


def _write_postings(segments: Sequence[LiveSegment], sinks: Sinks) -> None:
    if len(segments) == 1 and segments[0].deleted is None:
        segment = segments[0].segment
        sinks["indptr"].append(segment.indptr)
        sinks["rows"].append(segment.rows)
        sinks["weights"].append(segment.weights)
        return
    ends = np.sum([live.segment.indptr for live in segments], axis=0)
    kept = [None if live.deleted is None else np.flatnonzero(live.kept()) for live in segments]
    sinks["indptr"].append(np.zeros(1))
    for first, last in _chunks(ends):
        blocks = []
        for live, rows in zip(segments, kept, strict=True):
            block = _columns(live.segment, first, last)
            blocks.append(block if rows is None else block[:, rows])
        chunk = blocks[0] if len(blocks) == 1 else sp.hstack(blocks, format="csr")
        sinks["indptr"].append(chunk.indptr[1:].astype(np.int64) + sinks["rows"].length)
        sinks["rows"].append(chunk.indices)
        sinks["weights"].append(chunk.data)


def _chunks(indptr: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """All tokens as ranges, each of about ``_CHUNK_POSTINGS`` postings."""
    first, vocabulary_size = 0, len(indptr) - 1
    while first < vocabulary_size:
        last = int(np.searchsorted(indptr, indptr[first] + _CHUNK_POSTINGS, side="right")) - 1
        last = min(max(last, first + 1), vocabulary_size)
        yield first, last
        first = last


def _columns(segment: Segment, first: int, last: int) -> sp.csr_matrix:
    """The postings of tokens ``first`` to ``last``, shape ``(tokens, documents)``."""
    indptr = segment.indptr[first : last + 1]
    start, stop = int(indptr[0]), int(indptr[-1])
    arrays = (segment.weights[start:stop], segment.rows[start:stop], (indptr - start).astype(np.int32))
    return sp.csr_matrix(arrays, shape=(last - first, len(segment)))


def _write_strings(
    segments: Sequence[LiveSegment],
    columns: Sequence[Strings | NDArray[Any] | None],
    blob: Sink,
    offsets: Sink,
) -> None:
    offsets.append(np.zeros(1))
    for live, column in zip(segments, columns, strict=True):
        strings = column if isinstance(column, Strings) else Strings.encode([None] * len(live.segment))
        for start, stop in live.runs():
            bounds = strings.offsets[start : stop + 1]
            offsets.append(bounds[1:] - bounds[0] + blob.length)
            blob.append(strings.blob[bounds[0] : bounds[-1]])
