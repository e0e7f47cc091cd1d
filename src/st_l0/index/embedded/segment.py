"""Segments: immutable blocks of documents, held as postings in npy files or in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.arrays import DTYPES, open_array
from st_l0.index.embedded.checksums import Guard, damaged
from st_l0.index.embedded.postings import Postings
from st_l0.index.embedded.strings import Strings
from st_l0.index.embedded.words import Words, word_array_lengths, word_arrays
from st_l0.index.protocol import Id

_OFFSETS = {  # arrays that say where something begins in another
    "indptr": "rows",
    "id_offsets": "id_bytes",
    "text_offsets": "text_bytes",
    "word_offsets": "word_bytes",
    "word_indptr": "word_rows",
}


class Segment:
    """An immutable block of documents.

    Attributes:
        name: Name of its folder; None for a segment in memory.
        checksums: Those of each array; None in memory, and for files from before there were any.
        vectors: The postings of the tokens: their weights.
        words: The postings of the words, or None in an index without words.
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
        self._guards = guards or {}  # of arrays that this process has not written itself

        def strings(kind: str) -> Strings:
            names = (f"{kind}_bytes", f"{kind}_offsets")
            pair = (guards[names[0]], guards[names[1]]) if guards else None
            return Strings(arrays[names[0]], arrays[names[1]], pair)

        self.ids: NDArray[np.int64] | Strings = arrays["ids"] if "ids" in arrays else strings("id")
        self.texts = strings("text") if "text_bytes" in arrays else None
        self.vectors = Postings(
            arrays["indptr"],
            arrays["rows"],
            arrays["weights"],
            len(self),
            {"rows": guards["rows"], "values": guards["weights"]} if guards else None,
        )
        self.words = Words(arrays, guards) if "word_bytes" in arrays else None

    @classmethod
    def build(
        cls,
        ids: Sequence[Id],
        matrix: sp.csr_matrix,
        texts: Sequence[str | None] | None = None,
        words: Sequence[Sequence[str]] | None = None,
    ) -> Segment:
        """A segment in memory from checked ids, vectors ``(documents, vocabulary)``, texts and words."""
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
        return cls(arrays if words is None else arrays | word_arrays(words))

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
        for name, last in _OFFSETS.items():
            if name in arrays and (arrays[name][0] != 0 or arrays[name][-1] != lengths[last]):
                raise damaged(guards[name].path, "offsets out of range")
        guards["indptr"].prove()
        if (arrays["indptr"][1:] < arrays["indptr"][:-1]).any():
            raise damaged(guards["indptr"].path, "offsets that descend")
        return cls(arrays, folder.name, checksums, guards)

    def describe(self) -> dict[str, Any]:
        """The sizes that `open` needs."""
        sizes = {
            "name": self.name,
            "documents": len(self),
            "postings": len(self.vectors),
            "id_bytes": len(self.ids.blob) if isinstance(self.ids, Strings) else None,
            "text_bytes": None if self.texts is None else len(self.texts.blob),
            "checksums": self.checksums,
        }
        return sizes if self.words is None else sizes | {"words": self.words.describe()}

    def prove(self) -> None:
        """Prove all that is not proven yet.

        Raises:
            InputError: A file is damaged.
        """
        self.vectors.prove()
        if self.words is not None:
            self.words.prove()
        for column in (self.ids, self.texts):
            if isinstance(column, Strings):
                column.prove()
        if "ids" in self._guards:
            self._guards["ids"].prove()

    def __len__(self) -> int:
        return len(self.ids.offsets) - 1 if isinstance(self.ids, Strings) else len(self.ids)

    @property
    def size(self) -> int:
        """Postings and documents, and what words add: the measure by which segments are merged."""
        return len(self.vectors) + len(self) + (0 if self.words is None else self.words.size)

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
    if "words" in entry:
        lengths |= word_array_lengths(documents, entry["words"])
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
