"""Exact search in one process: documents in memory or in a folder, postings walked a token at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.index.embedded import merging
from st_l0.index.embedded.arguments import as_count, as_ids, as_json, as_path, as_stored_texts, unique
from st_l0.index.embedded.asking import as_queries, visible, words_of
from st_l0.index.embedded.bm25 import WordSettings
from st_l0.index.embedded.building import new_segments
from st_l0.index.embedded.explaining import document_frequencies, explain, stored_vector
from st_l0.index.embedded.searching import find
from st_l0.index.embedded.segment import LiveSegment
from st_l0.index.embedded.snapshot import Snapshot
from st_l0.index.embedded.storage import Folder, Memory, Store
from st_l0.index.protocol import BM25, Hits, Id, Ids, as_weight
from st_l0.utils.inputs import as_texts
from st_l0.utils.sparse import Vectors, as_csr


class EmbeddedIndex:
    """An exact index, in memory or in a folder; see `Index` for the shapes of vectors and the ids.

    A hit is a document whose score is above zero, so documents that share no token with the query are never
    returned. Equal scores come in index order: the order of addition, an updated document counting as new.

    A folder holds 8 bytes a posting, and at most 6 a posting of words, memory-mapped. Every change is on the
    disk when its method returns, all of it or, after an error or a crash, nothing of it. One process writes
    at a time, the others wait. An open index goes on showing the snapshot that it saw last: its own changes
    at once, others' after `refresh`. Searching from several threads is safe. A pickle of an index in a folder
    holds its path only, one in memory is copied. What is read from a folder is compared with its checksums
    when it is first used: each method that needs a damaged file raises `InputError`, which names it.

    Args:
        path: A folder that holds an index or does not exist yet; None keeps the documents in memory.
        vocabulary_size: Length of the vectors; if None, an existing index knows it and a new one learns it
            from the first documents.
        metadata: A small JSON object stored with a new index; one that exists already keeps its own.
        create: Make a new index if there is none at ``path``.
        bm25: Keep words beside vectors: their language, or a `BM25`; if None, a new index holds none and an
            existing one keeps what it has. Every document then needs a text.

    Raises:
        InputError: there is no index and ``create`` is off; ``path`` is something else, cannot be written,
            is damaged, or holds vectors of another length or words of another ``bm25``; ``metadata`` is not
            JSON.

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
        bm25: str | BM25 | None = None,
    ) -> None:
        if vocabulary_size is not None:
            vocabulary_size = as_count(vocabulary_size, "vocabulary_size")
        self.path: Path | None = None
        wanted = None if bm25 is None else BM25.of(bm25)
        empty = Snapshot(
            vocabulary_size=vocabulary_size, metadata=as_json({} if metadata is None else metadata)
        )
        folder = None if path is None else Folder(as_path(path))
        new = folder is None or (create and not folder.exists())
        if new and wanted is not None:
            empty = replace(empty, words=WordSettings.new(wanted))
        if folder is None:
            self._store: Store = Memory(empty)
        else:
            self.path = folder.path
            if new:
                folder.create(empty)
            self._store = folder
        self._snapshot = self._store.load(empty)
        known = self._snapshot.vocabulary_size
        if None not in (known, vocabulary_size) and known != vocabulary_size:
            raise InputError(
                f"{path}: the index holds vectors of {known} dimensions, not {vocabulary_size}: "
                "use the model that it was built with, or another index"
            )
        if wanted not in (None, self.bm25):
            has = "no words" if self.bm25 is None else f"words of {self.bm25}"
            raise InputError(
                f"{path}: the index holds {has}, not of {wanted}: open it without bm25, or another"
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

    @property
    def bm25(self) -> BM25 | None:
        """How the index weighs words; None if it holds none."""
        words = self._snapshot.words
        return None if words is None else words.bm25

    @property
    def bm25_weight(self) -> float | None:
        """How much BM25 counts in a search that says "auto"; None if nothing is stored.

        Setting it stores it with the index; InputError if that holds no words, or it is no weight.
        """
        words = self._snapshot.words
        return None if words is None else words.weight

    @bm25_weight.setter
    def bm25_weight(self, weight: float | None) -> None:
        value = None if weight is None else as_weight(weight)
        with self._store.writing():
            snapshot = self._store.load(self._snapshot)
            words = replace(words_of(snapshot), weight=value)
            self._snapshot = self._store.publish(replace(snapshot, words=words))

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
                kind, lengths differ, a weight is NaN or infinite, the index holds words and a text is missing
                or its words are of another analyzer, or another process writes for long.
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
        values = unique(as_ids(ids))
        with self._store.writing():
            snapshot = self._store.load(self._snapshot)
            found = snapshot.locate(values)
            if len(found) < len(values):
                unknown = next(id for id in values if id not in found)
                raise InputError(f"id {unknown!r} is not in the index, so nothing was deleted")
            self._commit(snapshot, snapshot.without(found.values()))

    def search(
        self,
        queries: Vectors | None,
        k: int = 10,
        *,
        ids: Ids | None = None,
        mask: NDArray[np.bool_] | None = None,
        texts: Sequence[str] | None = None,
        bm25: float | Literal["auto"] = 0.0,
    ) -> list[Hits]:
        """Find the ``k`` best documents of each query, exactly.

        A batch is faster than query by query: it uses as many threads as torch where that is loaded, else
        ``OMP_NUM_THREADS``, else a thread for each core.

        Args:
            queries: Shape ``(queries, vocabulary_size)``; weights may be negative. None: words alone.
            k: At least 1.
            ids: Only these documents may be returned; unknown ids are ignored.
            mask: Only documents where it is True may be returned: bool, in the order of `ids()`, shape
                ``(documents,)``. With ``ids``, both must allow a document.
            texts: The text of each query, for its words.
            bm25: How much BM25 counts beside the vectors; "auto" is `bm25_weight`. At 0 ``texts`` count for
                nothing.

        Returns:
            One result a query, best first, with at most ``k`` hits, all of a score above zero.

        Raises:
            InputError: ``k`` is below 1, the queries have another length than the documents or a weight that
                is not finite, ``ids`` are of the wrong kind, or ``mask`` has another shape; ``bm25`` is no
                weight, or there are no texts or no words for it; the words are of another analyzer.
        """
        k = as_count(k, "k")
        snapshot = self._snapshot
        vectors = None if queries is None else self._check(queries, snapshot)
        matrix, words = as_queries(snapshot, vectors, texts, bm25)
        found = find(snapshot, matrix, k, visible(snapshot, ids, mask), words)
        return list(snapshot.as_hits(found))

    def explain(
        self,
        query: Vectors | None,
        id: Id,
        *,
        text: str | None = None,
        bm25: float | Literal["auto"] = 0.0,
    ) -> dict[int | str, tuple[float, float]]:
        """Why a document has its score, as the index stores it.

        Args:
            query: One vector, shape ``(vocabulary_size,)`` or ``(1, vocabulary_size)``; None: words alone.
            id: A document of the index.
            text: The text of the query, for its words.
            bm25: How much BM25 counts, as for `search`.

        Returns:
            The parts, largest product first; the products add up to the score. A token id → (query weight,
            document weight) of each token that both have. A word, as stemmed → (``bm25`` times its IDF and
            its count in the query, count / (count + norm) of the document).

        Raises:
            InputError: ``id`` is unknown, ``query`` is not one vector of the index's length, or what
                `search` refuses.
        """
        snapshot = self._snapshot
        vector = None if query is None else self._check(query, snapshot)
        matrix, words = as_queries(snapshot, vector, None if text is None else [text], bm25)
        if matrix.shape[0] != 1:
            raise InputError(f"explain takes one query, not {matrix.shape[0]}")
        return explain(snapshot, _position(snapshot, id), matrix, () if words is None else words[0])

    def vector(self, id: Id) -> sp.csr_matrix:
        """The vector of a document, shape ``(1, vocabulary_size)``; see `StoredVectors`."""
        snapshot = self._snapshot
        return stored_vector(snapshot, _position(snapshot, id))

    def document_frequencies(self, tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """How many documents have each of some tokens, shape ``(tokens,)``; see `CountedTokens`."""
        snapshot, wanted = self._snapshot, np.asarray(tokens, dtype=np.int64)
        if wanted.min(initial=0) < 0 or wanted.max(initial=0) >= (snapshot.vocabulary_size or 1):
            raise InputError(f"tokens must be from 0 to {(snapshot.vocabulary_size or 1) - 1}")
        return document_frequencies(snapshot, wanted)

    def save(self, path: str | Path) -> None:
        """Write a compact copy of what the index shows to another folder, replacing an index there.

        Raises:
            InputError: ``path`` is this index's own folder, holds something else than an index, or cannot be
                written.
            OSError: the disk is full.
        """
        snapshot, target = self._snapshot, Folder(as_path(path))
        if self.path is not None and target.path.resolve() == self.path.resolve():
            raise InputError(f"{path}: this is the folder of the index itself: save the copy elsewhere")
        with target.writing(create=True):
            groups = merging.pack([live for live in snapshot.segments if len(live)])
            target.publish(replace(snapshot, segments=tuple(target.write(group) for group in groups)))

    def _write(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None, replacing: bool) -> None:
        values = unique(as_ids(ids, ordered=True))
        matrix = self._check(vectors, self._snapshot)
        if len(values) != matrix.shape[0]:
            raise InputError(f"{len(values)} ids were given for {matrix.shape[0]} vectors")
        settings = self._snapshot.words
        if texts is not None:
            texts = as_stored_texts(texts) if settings is None else as_texts(texts)
            if len(texts) != len(values):
                raise InputError(f"{len(values)} ids were given for {len(texts)} texts")
        if not values:
            return
        if settings is not None and texts is None:
            raise InputError("the index holds words, so it needs the text of every document: give texts")
        words = None if settings is None else settings.split(cast(list[str], texts))
        with self._store.writing():
            snapshot = self._store.load(self._snapshot)
            self._check_length(matrix, snapshot)
            kind = "str" if isinstance(values[0], str) else "int"
            if snapshot.id_kind not in (None, kind):
                raise InputError(
                    f"the index has {snapshot.id_kind} ids, but {values[0]!r} is {kind}: use one kind"
                )
            if settings != snapshot.words:
                raise InputError("the index was replaced by one of other words meanwhile: open it again")
            found = snapshot.locate(values)
            if found and not replacing:
                raise InputError(f"id {next(iter(found))!r} is in the index already: update() replaces it")
            snapshot = replace(snapshot, vocabulary_size=matrix.shape[1], id_kind=kind)
            new = new_segments(values, matrix, texts, words)
            self._commit(snapshot, [*snapshot.without(found.values()), *new])

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


def _position(snapshot: Snapshot, id: Id) -> int:
    position = next(iter(snapshot.locate(as_ids(cast(Ids, [id]))).values()), None)
    if position is None:
        raise InputError(f"id {id!r} is not in the index")
    return position
