"""Exact search in one process: documents in memory or in a folder, postings walked a token at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.index.embedded import merging
from st_l0.index.embedded.arguments import as_count, as_ids, as_json, as_path, as_stored_texts
from st_l0.index.embedded.searching import find
from st_l0.index.embedded.segment import LiveSegment, Segment
from st_l0.index.embedded.snapshot import Snapshot
from st_l0.index.embedded.storage import Folder, Memory, Store
from st_l0.index.protocol import Hits, Id, Ids
from st_l0.utils.sparse import Vectors, as_csr


class EmbeddedIndex:
    """An exact index, in memory or in a folder; see `Index` for the shapes of vectors and the ids.

    A hit is a document whose score is above zero, so documents that share no token with the query are never
    returned. Equal scores come in index order: the order of addition, an updated document counting as new.

    A folder holds 8 bytes a posting, memory-mapped. Every change is on the disk when its method returns, all
    of it or, after an error or a crash, nothing of it. One process writes at a time, the others wait. An open
    index goes on showing the snapshot that it saw last: its own changes at once, others' after `refresh`.
    Searching from several threads is safe. A pickle of an index in a folder holds its path only, one in
    memory is copied. What is read from a folder is compared with its checksums when it is first used: each
    method that needs a damaged file raises `InputError`, which names it.

    Args:
        path: A folder that holds an index or does not exist yet; None keeps the documents in memory.
        vocabulary_size: Length of the vectors; if None, an existing index knows it and a new one learns it
            from the first documents.
        metadata: A small JSON object stored with a new index; one that exists already keeps its own.
        create: Make a new index if there is none at ``path``.

    Raises:
        InputError: there is no index and ``create`` is off; ``path`` is something else, cannot be written,
            is damaged, or holds vectors of another length; ``metadata`` is not JSON.

    Example:
        >>> index = EmbeddedIndex()
        >>> index.add(["a", "b"], np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
        >>> index.search(np.array([[1.0, 0.0, 1.0]]))[0][0]
        Hit(id='a', score=3.0, text=None)
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        vocabulary_size: int | None = None,
        metadata: Mapping[str, Any] | None = None,
        create: bool = True,
    ) -> None:
        if vocabulary_size is not None:
            vocabulary_size = as_count(vocabulary_size, "vocabulary_size")
        self.path = None if path is None else as_path(path)
        empty = Snapshot(
            vocabulary_size=vocabulary_size, metadata=as_json({} if metadata is None else metadata)
        )
        if self.path is None:
            self._store: Store = Memory(empty)
        else:
            folder = Folder(self.path)
            if create and not folder.exists():
                folder.create(empty)
            self._store = folder
        self._snapshot = self._store.load(empty)
        known = self._snapshot.vocabulary_size
        if None not in (known, vocabulary_size) and known != vocabulary_size:
            raise InputError(
                f"{path}: the index holds vectors of {known} dimensions, not {vocabulary_size}: "
                "use the model that it was built with, or another index"
            )
        self._told = vocabulary_size

    def __getstate__(self) -> Any:
        # A folder's index travels as its path, and shows what is there when it arrives.
        return self.__dict__ if self.path is None else (self.path.absolute(), self._told)

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__.update(state)
        else:
            self.__init__(state[0], vocabulary_size=state[1], create=False)  # type: ignore[misc]

    @property
    def vocabulary_size(self) -> int | None:
        """Length of the vectors; None while the index is new and was not told."""
        return self._told if self._snapshot.vocabulary_size is None else self._snapshot.vocabulary_size

    @property
    def metadata(self) -> dict[str, Any]:
        """The JSON object that was given when the index was made."""
        return dict(self._snapshot.metadata)

    def __len__(self) -> int:
        return len(self._snapshot)

    def __contains__(self, id: object) -> bool:
        value = id.item() if isinstance(id, np.generic) else id
        if not isinstance(value, str | int) or isinstance(value, bool):
            return False
        return bool(self._snapshot.locate([value]))

    def missing(self, ids: Ids) -> list[Id]:
        """Those of ``ids`` that are not in the index, in their order; an id of the other kind is missing.

        Raises:
            InputError: ids are neither all str nor all int.
        """
        values = as_ids(ids)
        found = self._snapshot.locate(values)
        return [id for id in values if id not in found]

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else repr(str(self.path))
        return f"EmbeddedIndex({place}, documents={len(self)}, vocabulary_size={self.vocabulary_size})"

    def ids(self) -> NDArray[Any]:
        """All ids in index order, shape ``(documents,)``: int64, or objects (str)."""
        snapshot = self._snapshot
        return snapshot.take_ids(np.flatnonzero(snapshot.kept))

    def refresh(self) -> None:
        """Show what other processes have written since."""
        self._snapshot = self._store.load(self._snapshot)

    def add(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents, shape ``(documents, vocabulary_size)``; a document may be empty (never a hit).

        Raises:
            InputError: an id is in the index already or given twice, ids are mixed or not of the index's
                kind, lengths differ, a weight is NaN or infinite, or another process writes for long.
            OSError: the disk is full.
        """
        self._write(ids, vectors, texts, replacing=False)

    def update(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents and, in the same moment, remove those that had their ids; errors as for `add`."""
        self._write(ids, vectors, texts, replacing=True)

    def delete(self, ids: Ids) -> None:
        """Remove documents.

        Raises:
            InputError: an id is unknown or given twice, or another process writes for long.
        """
        values = _unique(as_ids(ids))
        with self._store.writing():
            snapshot = self._store.load(self._snapshot)
            found = snapshot.locate(values)
            if len(found) < len(values):
                unknown = next(id for id in values if id not in found)
                raise InputError(f"id {unknown!r} is not in the index, so nothing was deleted")
            self._commit(snapshot, snapshot.without(found.values()))

    def search(
        self, queries: Vectors, k: int = 10, *, ids: Ids | None = None, mask: NDArray[np.bool_] | None = None
    ) -> list[Hits]:
        """Find the ``k`` best documents of each query, exactly.

        A batch is faster than query by query: it uses as many threads as torch where that is loaded, else
        ``OMP_NUM_THREADS``, else a thread for each core.

        Args:
            queries: Shape ``(queries, vocabulary_size)``; weights may be negative.
            k: At least 1.
            ids: Only these documents may be returned; unknown ids are ignored.
            mask: Only documents where it is True may be returned: bool, in the order of `ids()`, shape
                ``(documents,)``. With ``ids``, both must allow a document.

        Returns:
            One result a query, best first, with at most ``k`` hits, all of a score above zero.

        Raises:
            InputError: ``k`` is below 1, the queries have another length than the documents or a weight that
                is not finite, ``ids`` are of the wrong kind, or ``mask`` has another shape.
        """
        k = as_count(k, "k")
        snapshot = self._snapshot
        matrix = self._check(queries, snapshot)
        found = find(snapshot, matrix, k, _visible(snapshot, ids, mask))
        return list(snapshot.as_hits(found))

    def explain(self, query: Vectors, id: Id) -> dict[int, tuple[float, float]]:
        """Why a document has its score, as the index stores it.

        Args:
            query: One vector, shape ``(vocabulary_size,)`` or ``(1, vocabulary_size)``.
            id: A document of the index.

        Returns:
            Token id → (query weight, document weight) of the tokens that both have, largest product first;
            the products add up to the score.

        Raises:
            InputError: ``id`` is unknown, or ``query`` is not one vector of the index's length.
        """
        snapshot = self._snapshot
        matrix = self._check(query, snapshot)
        if matrix.shape[0] != 1:
            raise InputError(f"explain takes one query, not {matrix.shape[0]}")
        position = next(iter(snapshot.locate(as_ids(cast(Ids, [id]))).values()), None)
        if position is None:
            raise InputError(f"id {id!r} is not in the index")
        ((number, _, (row,)),) = snapshot.split(np.array([position]))
        segment = snapshot.segments[number].segment
        segment.prove_lists(matrix.indices)
        shared = {}
        for token, weight in zip(matrix.indices.tolist(), matrix.data.tolist(), strict=True):
            start, stop = segment.indptr[token : token + 2].tolist()
            place = start + int(np.searchsorted(segment.rows[start:stop], row))
            if place < stop and segment.rows[place] == row:
                shared[token] = (weight, float(segment.weights[place]))
        return dict(sorted(shared.items(), key=lambda item: -item[1][0] * item[1][1]))

    def save(self, path: str | Path) -> None:
        """Write a compact copy of what the index shows to another folder, replacing an index there.

        Raises:
            InputError: ``path`` is this index's own folder, holds something else than an index, or cannot be
                written.
            OSError: the disk is full.
        """
        path = as_path(path)
        if self.path is not None and path.resolve() == self.path.resolve():
            raise InputError(f"{path}: this is the folder of the index itself: save the copy elsewhere")
        snapshot, target = self._snapshot, Folder(path)
        with target.writing(create=True):
            groups = merging.pack([live for live in snapshot.segments if len(live)])
            target.publish(replace(snapshot, segments=tuple(target.write(group) for group in groups)))

    def _write(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None, replacing: bool) -> None:
        values = _unique(as_ids(ids, ordered=True))
        matrix = self._check(vectors, self._snapshot)
        if len(values) != matrix.shape[0]:
            raise InputError(f"{len(values)} ids were given for {matrix.shape[0]} vectors")
        if texts is not None:
            texts = as_stored_texts(texts)
            if len(texts) != len(values):
                raise InputError(f"{len(values)} ids were given for {len(texts)} texts")
        if not values:
            return
        with self._store.writing():
            snapshot = self._store.load(self._snapshot)
            self._check_length(matrix, snapshot)
            kind = "str" if isinstance(values[0], str) else "int"
            if snapshot.id_kind not in (None, kind):
                raise InputError(
                    f"the index has {snapshot.id_kind} ids, but {values[0]!r} is {kind}: use one kind"
                )
            found = snapshot.locate(values)
            if found and not replacing:
                raise InputError(f"id {next(iter(found))!r} is in the index already: update() replaces it")
            snapshot = replace(snapshot, vocabulary_size=matrix.shape[1], id_kind=kind)
            self._commit(snapshot, [*snapshot.without(found.values()), *_new_segments(values, matrix, texts)])

    def _commit(self, snapshot: Snapshot, segments: list[LiveSegment]) -> None:
        settled = tuple(self._store.settle(group) for group in merging.plan(segments))
        self._snapshot = self._store.publish(replace(snapshot, segments=settled))

    def _check(self, vectors: Vectors, snapshot: Snapshot) -> sp.csr_matrix:
        matrix = as_csr(vectors)
        self._check_length(matrix, snapshot)
        return matrix

    def _check_length(self, matrix: sp.csr_matrix, snapshot: Snapshot) -> None:
        expected = self._told if snapshot.vocabulary_size is None else snapshot.vocabulary_size
        if expected is not None and matrix.shape[1] != expected:
            raise InputError(
                f"the vectors have {matrix.shape[1]} dimensions, those of the index {expected}: "
                "encode with the model that the index was built with"
            )


def _visible(
    snapshot: Snapshot, ids: Ids | None, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32] | None:
    """1 for positions that may be returned and 0 for others; None if all may."""
    if ids is None and mask is None:
        return snapshot.visible
    allowed = snapshot.kept
    if ids is not None:
        values = as_ids(ids)
        if values and snapshot.id_kind not in (None, "str" if isinstance(values[0], str) else "int"):
            raise InputError(f"the index has {snapshot.id_kind} ids, but {values[0]!r} is not one")
        allowed = np.zeros(len(snapshot.kept), dtype=bool)
        allowed[list(snapshot.locate(values).values())] = True
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(snapshot),):
            raise InputError(
                f"mask must be {len(snapshot)} booleans, one a document in the order of ids(), "
                f"not {mask.dtype} of shape {mask.shape}"
            )
        allowed = allowed.copy()
        allowed[np.flatnonzero(snapshot.kept)[~mask]] = False
    return allowed.astype(np.float32)


def _unique(ids: list[Id]) -> list[Id]:
    if len(set(ids)) < len(ids):
        seen: set[Id] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise InputError(f"id {twice!r} is given more than once")
    return ids


def _new_segments(
    ids: list[Id], matrix: sp.csr_matrix, texts: Sequence[str | None] | None
) -> Iterator[LiveSegment]:
    """The documents as segments in memory, each small enough for int32 positions."""
    sizes = np.cumsum(np.diff(matrix.indptr).astype(np.int64) + 1)
    start, before = 0, 0
    while start < len(ids):
        stop = max(int(np.searchsorted(sizes, before + merging.MAX_SIZE, side="right")), start + 1)
        chunk = None if texts is None else texts[start:stop]
        yield LiveSegment(Segment.build(ids[start:stop], _rows(matrix, start, stop), chunk))
        start, before = stop, int(sizes[stop - 1])


def _rows(matrix: sp.csr_matrix, start: int, stop: int) -> sp.csr_matrix:
    """Some rows, without copying them."""
    first, last = matrix.indptr[[start, stop]].tolist()
    indptr = matrix.indptr[start : stop + 1] - first
    arrays = (matrix.data[first:last], matrix.indices[first:last], indptr)
    return sp.csr_matrix(arrays, shape=(stop - start, matrix.shape[1]))
