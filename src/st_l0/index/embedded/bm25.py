"""BM25 over the words of a snapshot's documents: how many have each word, and what each posting is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple, TypeAlias

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
        text: The word.
        idf: How rare it is, above 0.
        bases: Position of the first row of each segment that has it.
        rows: Its postings there: rows, ascending. Deleted ones are among them.
        counts: And how often each row has it.
    """

    text: str
    idf: float
    bases: list[int]
    rows: list[NDArray[np.int32]]
    counts: list[NDArray[np.integer[Any]]]


Weighed: TypeAlias = Sequence[tuple[Word, float]]  # the words of a query, and their weights in it

_KEPT_A_DOCUMENT, _KEPT = 32, 1 << 24  # postings that are kept in memory, and never more than that, 128 MB


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
        lengths = np.concatenate([np.zeros(0, np.int32), *(_words_of(live).lengths for live in segments)])
        coded = lengths if bm25.lengths == "exact" else code_lengths(lengths)
        self._norms = (bm25.k1 * (1 - bm25.b + bm25.b * coded / mean)).astype(np.float32)  # one a position
        self._postings: dict[str, tuple[NDArray[Any], NDArray[np.float32]]] = {}
        self._limit = self._room = min(_KEPT_A_DOCUMENT * len(self._norms), _KEPT)

    def weigh(self, words: Sequence[str], weight: float) -> Weighed:
        """The words of a query that some document has, and ``weight`` times the IDF of each.

        A word counts as often as it is there.
        """
        known = ((self.find(word), count) for word, count in Counter(words).items())
        return [(word, weight * word.idf * count) for word, count in known if word is not None]

    def find(self, word: str) -> Word | None:
        """A word, or None if no document has it.

        Raises:
            InputError: A file is damaged.
        """
        known = self._found.get(word)
        if known is not None:
            return known
        frequency, base = 0, 0
        found = Word(word, 0.0, [], [], [])
        for live, kept in zip(self._segments, self._kept, strict=True):
            words = _words_of(live)
            start, stop = words.find(word)
            if start < stop:
                rows = words.postings.rows[start:stop]
                frequency += len(rows) if kept is None else int(np.count_nonzero(kept[rows]))
                found.bases.append(base)
                found.rows.append(rows)
                found.counts.append(words.counts(start, stop))
            base += len(live.segment)
        if not frequency:
            return None
        idf = math.log1p((self.documents - frequency + 0.5) / (frequency + 0.5))
        self._found[word] = found = found._replace(idf=idf)
        return found

    def postings(self, word: Word) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Positions that have a word, ascending, and what BM25 makes of each count: count / (count + norm).

        What was asked for is kept, up to a limit: few words make up most of the postings of queries.
        """
        kept = self._postings.get(word.text)
        if kept is not None:
            return kept
        rows, counts = word.rows[0], word.counts[0]
        if len(self._segments) > 1:
            shape = np.int32 if len(self._norms) < 2**31 else np.int64
            bases = np.array(word.bases, shape)
            rows = np.concatenate([piece + base for piece, base in zip(word.rows, bases, strict=True)])
            counts = np.concatenate(word.counts)
        values = counts.astype(np.float32)
        values /= self._norms.take(rows) + values
        self._room -= len(rows)
        if self._room < 0:
            self._postings.clear()
            self._room = self._limit - len(rows)
        if self._room >= 0:
            self._postings[word.text] = rows, values
        return rows, values

    def part(self, word: Word, position: int) -> float:
        """What BM25 makes of the count that a document has; 0 without the word."""
        for base, rows, counts in zip(word.bases, word.rows, word.counts, strict=True):
            place = int(np.searchsorted(rows, position - base))
            if place < len(rows) and rows[place] == position - base:
                count = np.float32(counts[place])
                return float(count / (count + self._norms[position]))
        return 0.0


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
