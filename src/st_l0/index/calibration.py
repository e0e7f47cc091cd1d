"""How much words count beside vectors: a weight of BM25 for an index, with labels or without."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from st_l0.errors import InputError
from st_l0.index.protocol import Hits, Id, Index

SHARE = 0.5  # of the model's spread, what BM25's becomes
_DEPTH = 100  # the ranks between which a spread is measured: 1 and this
_WORDS = 32  # of a sentence, at most
_Document = TypeVar("_Document", bound="Titled")
_SENTENCE_END = re.compile(r"(?<=[.!?。！？।])\s+|\n")


class EncodesQueries(Protocol):
    """What encodes the queries of an index."""

    def encode_query(self, inputs: list[str], /, *, convert_to_scipy: bool) -> Any:
        """Queries → CSR ``(queries, vocabulary)``."""


class Titled(Protocol):
    """A document: `st_l0.data.Document` is one."""

    @property
    def id(self) -> Any:
        """Its identifier."""

    @property
    def text(self) -> str:
        """All of it."""

    @property
    def title(self) -> str:
        """Its title; empty where there is none."""


class PseudoQuery(NamedTuple):
    """A query made of a document: the document's id, and its title or first sentence."""

    id: Id
    text: str


class PseudoQueries:
    """Queries made of documents that pass by: their titles, or first sentences where there is none.

    Args:
        number: How many to draw at most, each document with the same chance.
        seed: Of the draw; the same documents in the same order give the same queries.
    """

    def __init__(self, number: int = 200, seed: int = 0) -> None:
        self._number = number
        self._random = random.Random(seed)
        self._seen = 0
        self._drawn: list[PseudoQuery] = []

    def __len__(self) -> int:
        return len(self._drawn)

    @property
    def drawn(self) -> Sequence[PseudoQuery]:
        """The queries, in no particular order."""
        return self._drawn

    def watch(self, documents: Iterable[_Document]) -> Iterator[_Document]:
        """Give documents on, and draw from them."""
        for document in documents:
            query = " ".join(document.title.split()[:_WORDS]) or first_sentence(document.text)
            if query:
                self._draw(PseudoQuery(document.id, query))
            yield document

    def _draw(self, query: PseudoQuery) -> None:
        self._seen += 1
        if len(self._drawn) < self._number:
            self._drawn.append(query)
        elif (place := self._random.randrange(self._seen)) < self._number:
            self._drawn[place] = query


def first_sentence(text: str) -> str:
    """The first sentence of a text, its first 32 words if it is longer; empty for an empty text.

    Example:
        >>> first_sentence("Rain on glass. It falls in drops.")
        'Rain on glass.'
    """
    return " ".join(_SENTENCE_END.split(text.strip(), maxsplit=1)[0].split()[:_WORDS])


def weigh_by_spread(index: Index, model: EncodesQueries, queries: Sequence[PseudoQuery]) -> float:
    """The weight at which BM25's scores spread half as far as the model's, between ranks 1 and 100.

    It needs no labels. The document that a query was made of does not count.

    Args:
        index: Documents with words.
        model: Encodes the queries; the one of the index.
        queries: What `PseudoQueries` drew from the documents.

    Returns:
        The weight, rounded to two digits.

    Raises:
        InputError: The index holds no words, or no query finds two documents by its vector and by its words.
    """
    texts = [query.text for query in queries]
    spreads = []
    if texts:
        vectors = model.encode_query(texts, convert_to_scipy=True)
        by_model = index.search(vectors, _DEPTH + 1)
        by_words = index.search(None, _DEPTH + 1, texts=texts, bm25=1.0)
        pairs = zip(queries, by_model, by_words, strict=True)
        found = ((_spread(one, query.id), _spread(other, query.id)) for query, one, other in pairs)
        spreads = [pair for pair in found if all(pair)]
    if not spreads:
        raise InputError(
            f"none of {len(texts)} titles or first sentences finds two other documents by its vector and by "
            "its words, so the weight of BM25 cannot be found without labels: give a number"
        )
    model_spread, word_spread = np.mean(spreads, axis=0)
    return _round(SHARE * model_spread / word_spread)


def weigh_by_documents(index: Index, model: EncodesQueries, documents: Iterable[Titled]) -> float:
    """The same, with queries drawn from documents at hand; errors as there."""
    drawn = PseudoQueries()
    for _ in drawn.watch(documents):
        pass
    return weigh_by_spread(index, model, drawn.drawn)


def _spread(hits: Hits, own: object) -> float:
    scores = hits.scores[hits.ids != own][:_DEPTH]
    return float(scores[0] - scores[-1]) if len(scores) > 1 else 0.0


def _round(weight: float) -> float:
    return float(f"{weight:.2g}")
