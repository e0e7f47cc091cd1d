"""BM25 over the words of a snapshot's documents: how many have each word, and what each posting is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.index.embedded.segment import LiveSegment
from st_l0.index.embedded.words import Words
from st_l0.index.protocol import BM25
from st_l0.utils.words import Analyzer


@dataclass(frozen=True)
class WordSettings:
    """What an index with words was made with.

    Attributes:
        bm25: The language, k1, b and the form of lengths.
        analyzer: The fingerprint of what made the words.
        weight: How much BM25 counts beside the vectors, if that is stored.
    """

    bm25: BM25
    analyzer: str
    weight: float | None = field(default=None, compare=False)

    @classmethod
    def new(cls, bm25: BM25) -> WordSettings:
        """Those of a new index; errors as for `Analyzer`."""
        return cls(bm25, _analyzer(bm25.language).fingerprint)

    def split(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text.

        Raises:
            InputError: The words of the index were made by another analyzer.
        """
        analyzer = _analyzer(self.bm25.language)
        if analyzer.fingerprint != self.analyzer:
            raise InputError(
                f"the index has words of another {self.bm25.language} analyzer, or version of PyStemmer: "
                "install the version that made it, build it again, or search without words"
            )
        return analyzer(texts)


@cache
def _analyzer(language: str) -> Analyzer:
    return Analyzer(language)


class Word(NamedTuple):
    """A word that some document has.

    Attributes:
        idf: How rare it is, above 0.
        spans: Where its postings lie in each segment; (0, 0) where there are none.
    """

    idf: float
    spans: list[tuple[int, int]]


class Statistics:
    """What BM25 has to know of the live documents of some segments, deleted ones left out.

    Args:
        segments: All of an index; each has words.
        bm25: The settings.

    Raises:
        InputError: A file is damaged.
    """

    def __init__(self, segments: Sequence[LiveSegment], bm25: BM25) -> None:
        self._segments = segments
        self._kept = [None if live.deleted is None else live.kept() for live in segments]
        self._found: dict[str, Word] = {}
        self.documents = self.total = 0
        for live, kept in zip(segments, self._kept, strict=True):
            lengths = _words_of(live).lengths if kept is None else _words_of(live).lengths[kept]
            self.documents += len(lengths) if bm25.lengths == "exact" else int(np.count_nonzero(lengths))
            self.total += int(lengths.sum(dtype=np.int64))
        mean = self.total / self.documents if self.total else 1.0
        self._norms = []
        for live in segments:
            lengths = _words_of(live).lengths
            coded = lengths if bm25.lengths == "exact" else code_lengths(lengths)
            self._norms.append((bm25.k1 * (1 - bm25.b + bm25.b * coded / mean)).astype(np.float32))

    def weigh(self, words: Sequence[str], weight: float) -> list[tuple[str, Word, float]]:
        """The words of a query that some document has, and ``weight`` times the IDF of each.

        A word counts as often as it is there.
        """
        known = ((word, self.find(word), count) for word, count in Counter(words).items())
        return [(word, found, weight * found.idf * count) for word, found, count in known if found]

    def find(self, word: str) -> Word | None:
        """A word, or None if no document has it.

        Raises:
            InputError: A file is damaged.
        """
        known = self._found.get(word)
        if known is not None:
            return known
        spans = [_words_of(live).find(word) for live in self._segments]
        frequency = 0
        for live, kept, (start, stop) in zip(self._segments, self._kept, spans, strict=True):
            rows = _words_of(live).postings.rows[start:stop]
            frequency += len(rows) if kept is None else int(np.count_nonzero(kept[rows]))
        if not frequency:
            return None
        idf = math.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
        self._found[word] = Word(idf, spans)
        return self._found[word]

    def gather(
        self, segment: int, spans: Sequence[tuple[int, int]]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """The rows of postings of a segment, at least one span, and what each is worth: tf / (tf + norm)."""
        rows, counts = _words_of(self._segments[segment]).gather(spans)
        norms = self._norms[segment].take(rows)
        norms += counts
        counts /= norms
        return rows, counts


def _words_of(live: LiveSegment) -> Words:
    words = live.segment.words
    assert words is not None
    return words


_EXACT = 24  # Lucene's byte has the lengths below as they are


def code_lengths(lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    """Lengths as Lucene's one byte gives them back: exact below 41, else the four highest bits above 24.

    Source: ``SmallFloat.intToByte4`` and ``byte4ToInt`` of Lucene 10
    """
    above = np.maximum(lengths.astype(np.int64) - _EXACT, 0)
    lost = np.maximum(np.frexp(above.astype(np.float64))[1] - 4, 0)
    return np.where(lengths < _EXACT, lengths, _EXACT + (above >> lost << lost))
