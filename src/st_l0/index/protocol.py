"""What every search engine of this package offers, and what a search returns."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, overload, runtime_checkable

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.utils.sparse import Vectors
from st_l0.utils.words import K1, B

Id: TypeAlias = "str | int"
Ids: TypeAlias = "Iterable[str] | Iterable[int] | NDArray[Any]"


@dataclass(frozen=True)
class BM25:
    """How an index weighs words: Lucene's variant of BM25, without its constant factor (k1 + 1).

    The score of a document is the sum over the query's words of
    ``ln(1 + (N - n + .5) / (n + .5)) * tf / (tf + k1 * (1 - b + b * length / mean))``: N documents, of which
    n have the word, and the mean of their lengths in words.

    Args:
        language: Of the stop words and the stemmer; see `st_l0.utils.words.Analyzer`.
        k1: How slowly repetitions lose weight, 0 to 1000; usual are 0.9 to 2.
        b: How much a document's length counts, 0 to 1.
        lengths: "exact", or "lucene": as Lucene's one byte keeps them (up to 9 % low above 40 words), while N
            and the mean leave documents without words out, so that scores equal OpenSearch's.

    Raises:
        InputError: A value is out of its range.
    """

    language: str = "english"
    k1: float = K1
    b: float = B
    lengths: Literal["exact", "lucene"] = "exact"

    def __post_init__(self) -> None:
        for name, highest in (("k1", 1000.0), ("b", 1.0)):
            value = getattr(self, name)
            if not _is_number(value) or not 0 <= value <= highest:
                raise InputError(f"{name} of BM25 must be a number from 0 to {highest:g}, not {value!r:.40}")
            object.__setattr__(self, name, float(value))
        if self.lengths not in ("exact", "lucene"):
            raise InputError(f"lengths of BM25 must be 'exact' or 'lucene', not {self.lengths!r:.40}")
        if not isinstance(self.language, str):
            raise InputError(f"language of BM25 must be a name such as 'english', not {self.language!r:.40}")

    @classmethod
    def of(cls, given: Any) -> BM25:
        """What a caller means: a language alone, with the usual settings, or all of them."""
        if isinstance(given, BM25):
            return given
        if not isinstance(given, str):
            raise InputError(f"bm25 must be a language such as 'english', or a BM25, not {given!r:.40}")
        return cls(given)


def as_weight(given: Any, stored: float | None = None) -> float:
    """How much BM25 counts in a search; "auto" is what the index has ``stored``.

    Raises:
        InputError: It is no number from 0 to 1e9, or nothing is stored.
    """
    if isinstance(given, str) and given == "auto":
        if stored is None:
            raise InputError("bm25='auto', but the index has no weight stored: set bm25_weight, or give one")
        return stored
    if not _is_number(given) or not 0 <= given <= 1e9:  # beyond, float32 ends
        raise InputError(f"the weight of BM25 must be a number from 0 to 1e9, not {given!r:.40}")
    return float(given)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


class Hit(NamedTuple):
    """One document found: its id, its score (see `Index.search`) and its text, if stored."""

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

    @property
    def bm25(self) -> BM25 | None:
        """How the index weighs words; None if it holds none."""

    @property
    def bm25_weight(self) -> float | None:
        """How much BM25 counts where a search says "auto"; None if nothing is stored. It can be set."""

    @bm25_weight.setter
    def bm25_weight(self, weight: float | None) -> None: ...

    def __len__(self) -> int: ...

    def missing(self, ids: Ids) -> list[Id]:
        """Those of ``ids`` that are not in the index, in their order; an id of the other kind is missing."""

    def add(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents whose ids are new. An index with words needs a text of each."""

    def update(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents, replacing those whose ids are known."""

    def delete(self, ids: Ids) -> None:
        """Remove documents; every id must be known."""

    def search(
        self,
        queries: Vectors | None,
        k: int = 10,
        *,
        ids: Ids | None = None,
        texts: Sequence[str] | None = None,
        bm25: float | Literal["auto"] = 0.0,
    ) -> list[Hits]:
        """Find the ``k`` best documents of each query, among ``ids`` if given; unknown ids are ignored.

        The score is the dot product of vectors, plus ``bm25`` times `BM25` of the query's text, in an index
        with words. With ``bm25`` 0 texts count for nothing. ``queries`` None: words alone.

        A hit scores above zero. Hits come by falling score. Equal scores come in an order that is the
        engine's, and the same for the same documents; `EmbeddedIndex` keeps the order of addition.
        """

    def explain(
        self,
        query: Vectors | None,
        id: Id,
        *,
        text: str | None = None,
        bm25: float | Literal["auto"] = 0.0,
    ) -> dict[int | str, tuple[float, float]]:
        """The parts of a score, largest product first; the products add up to it.

        A token id → (query weight, document weight) of each token that both have; a word →
        (``bm25`` times its IDF and its count in the query, what its count in the document makes of that).
        """


class Add(Protocol):
    """What adds documents, as `Index.add`."""

    def __call__(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
        """Add documents."""


@runtime_checkable
class LoadingIndex(Index, Protocol):
    """An index that takes many documents in a way of its own; an engine need not have one.

    Who fills an index uses it where it is there, and `Index.add` otherwise.
    """

    def loading(self, refused: str | Path | None = None) -> AbstractContextManager[Add]:
        """Give, for a ``with`` block, what adds documents; at its end all of them are there, and are found.

        It returns before they are there, and waits while too many are under way: the caller encodes the next
        ones while the index takes the last ones. What went wrong is raised by a later call or at the end.
        Of an id that is given twice one document remains. Where a process was killed, the ids that
        `Index.missing` then gives are those to add.

        Args:
            refused: File for the documents that cannot be taken, a JSON object a line, with the reasons; all
                others are added. None: the complaint at the end names the first one.
        """


@runtime_checkable
class StoredVectors(Protocol):
    """An index that gives back the vectors it was given; an engine need not."""

    def vector(self, id: Id) -> sp.csr_matrix:
        """The vector of one document, shape ``(1, vocabulary_size)``.

        Raises:
            InputError: ``id`` is not in the index.
        """


@runtime_checkable
class CountedTokens(Protocol):
    """An index that knows at once how many documents have a token; an engine need not."""

    def document_frequencies(self, tokens: Sequence[int] | NDArray[np.integer]) -> NDArray[np.int64]:
        """How many documents have each of some tokens, shape ``(tokens,)``.

        Raises:
            InputError: There is no token of such a number.
        """
