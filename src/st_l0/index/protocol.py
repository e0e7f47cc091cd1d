"""What every search engine of this package offers, and what a search returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from st_l0.utils.sparse import Vectors

Id: TypeAlias = "str | int"
Ids: TypeAlias = "Iterable[str] | Iterable[int] | NDArray[Any]"


class Hit(NamedTuple):
    """One document found: its id, its score (the dot product with the query) and its text, if stored."""

    id: Id
    score: float
    text: str | None


class Hits(Sequence[Hit]):
    """The documents found for one query, best first.

    By falling score; see `Index.search` for equal ones. ``Hit`` objects are made on access, so a long result
    costs two arrays only.

    Args:
        ids: The documents' ids, int64 or objects (str), shape ``(hits,)``.
        scores: Their scores, shape ``(hits,)``.
        texts: Their texts, read on access; None if none are stored.
    """

    __slots__ = ("_texts", "ids", "scores")

    def __init__(
        self, ids: NDArray[Any], scores: NDArray[np.float32], texts: Sequence[str | None] | None = None
    ) -> None:
        self.ids = ids
        self.scores = scores
        self._texts = texts

    def __len__(self) -> int:
        return len(self.scores)

    @overload
    def __getitem__(self, item: int) -> Hit: ...
    @overload
    def __getitem__(self, item: slice) -> Hits: ...
    def __getitem__(self, item: int | slice) -> Hit | Hits:
        texts = None if self._texts is None else self._texts[item]
        if isinstance(item, slice):
            return Hits(self.ids[item], self.scores[item], texts)
        found = self.ids[item]
        return Hit(
            found.item() if isinstance(found, np.generic) else found,
            float(self.scores[item]),
            texts,  # type: ignore[arg-type]
        )

    def __iter__(self) -> Iterator[Hit]:
        # The same as item by item, in less than half the time.
        texts = repeat(None) if self._texts is None else self._texts
        return map(Hit._make, zip(self.ids.tolist(), self.scores.tolist(), texts))  # noqa: B905

    def as_run(self) -> dict[str, float]:
        """Document id → score, best first: the query's entry in a run, where ids are str."""
        return dict(zip(map(str, self.ids.tolist()), self.scores.tolist(), strict=True))

    def __repr__(self) -> str:
        return f"Hits({list(self[:3])!r}{', ...' if len(self) > 3 else ''}, length={len(self)})"


@runtime_checkable
class Index(Protocol):
    """Documents as sparse vectors, found by their dot product with a query.

    Vectors are anything that `st_l0.utils.sparse.as_csr` takes, of shape ``(texts, vocabulary_size)``.
    Ids are all str or all int, and unique. Unusable input raises `InputError` and changes nothing.

    Every method takes as many ids or queries as the caller has: where an index is a server, a call is a
    round trip. So there is no ``id in index``, which would be one a document, but `missing`; and nothing
    that would bring all ids to the caller.
    """

    @property
    def vocabulary_size(self) -> int | None:
        """Length of the vectors; None while the index is new and was not told."""

    @property
    def metadata(self) -> dict[str, Any]:
        """A small JSON object stored with the index, such as the model's name."""

    def __len__(self) -> int: ...

    def missing(self, ids: Ids) -> list[Id]:
        """Those of ``ids`` that are not in the index, in their order; an id of the other kind is missing."""

    def add(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents whose ids are new."""

    def update(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents, replacing those whose ids are known."""

    def delete(self, ids: Ids) -> None:
        """Remove documents; every id must be known."""

    def search(self, queries: Vectors, k: int = 10, *, ids: Ids | None = None) -> list[Hits]:
        """Find the ``k`` best documents of each query, among ``ids`` if given; unknown ids are ignored.

        A hit scores above zero. Hits come by falling score. Equal scores come in an order that is the
        engine's, and the same for the same documents; `EmbeddedIndex` keeps the order of addition.
        """

    def explain(self, query: Vectors, id: Id) -> dict[int, tuple[float, float]]:
        """Token id → (query weight, document weight) of the tokens that both have, largest product first."""
