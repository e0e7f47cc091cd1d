"""The words of a segment: which documents have each of them, how often, and how many words a document has."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.arrays import Sinks
from st_l0.index.embedded.checksums import Guard, damaged
from st_l0.index.embedded.postings import Postings, beside, chunks
from st_l0.index.embedded.strings import Strings

_LARGE = 255  # a byte holds the counts below; few are above, and stand in arrays of their own


class Words:
    """The words of a segment's documents, in ascending order of their bytes.

    Args:
        arrays: By name: ``word_bytes`` and ``word_offsets`` are the words; ``word_indptr``, ``word_rows`` and
            ``word_counts`` the postings; ``word_large_places`` and ``word_large_counts`` the postings whose
            count is not below 255, and what it is; ``word_lengths`` has the number of words of each document.
        guards: Those of the arrays, if they come from files.
    """

    def __init__(self, arrays: Mapping[str, NDArray[Any]], guards: Mapping[str, Guard] | None = None) -> None:
        guards = guards or {}
        pair = (guards["word_bytes"], guards["word_offsets"]) if guards else None
        self._strings = Strings(arrays["word_bytes"], arrays["word_offsets"], pair)
        self.postings = Postings(
            arrays["word_indptr"],
            arrays["word_rows"],
            arrays["word_counts"],
            len(arrays["word_lengths"]),
            {name: guards[f"word_{kind}"] for name, kind in (("rows", "rows"), ("values", "counts"))}
            if guards
            else None,
        )
        self._lengths: NDArray[np.int32] = arrays["word_lengths"]
        self._places: NDArray[np.int32] = arrays["word_large_places"]
        self._large: NDArray[np.int32] = arrays["word_large_counts"]
        self.arrays = {name: array for name, array in arrays.items() if name.startswith("word_")}
        self._guards = guards
        self._proven = not guards  # all but the postings

    def describe(self) -> dict[str, int]:
        """The sizes that `word_array_lengths` needs."""
        return {
            "words": len(self),
            "bytes": len(self._strings.blob),
            "postings": len(self.postings),
            "large": len(self._places),
        }

    def __len__(self) -> int:
        return len(self._strings.offsets) - 1

    @property
    def size(self) -> int:
        """Postings and bytes of words, each below 2**31 if this is."""
        return len(self.postings) + len(self._strings.blob)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """The number of words of each document, shape ``(documents,)``."""
        self._prove_tables()
        return self._lengths

    def find(self, word: str) -> tuple[int, int]:
        """Where the postings of a word lie, proven; (0, 0) if there are none.

        Raises:
            InputError: A file is damaged.
        """
        self._prove_tables()
        wanted = word.encode("utf-8", "surrogatepass")
        number = bisect_left(range(len(self)), wanted, key=self._bytes)
        if number == len(self) or self._bytes(number) != wanted:
            return 0, 0
        self.postings.prove_lists(np.array([number]))
        start, stop = self.postings.indptr[number : number + 2].tolist()
        return start, stop

    def _bytes(self, number: int) -> bytes:
        start, stop = self._strings.offsets[number : number + 2].tolist()
        return self._strings.blob[start:stop].tobytes()

    def counts(self, start: int, stop: int) -> NDArray[np.integer[Any]]:
        """How often the document of each posting has its word, shape ``(stop - start,)``."""
        counts: NDArray[np.integer[Any]] = self.postings.values[start:stop]
        first, last = np.searchsorted(self._places, [start, stop]).tolist()
        if first < last:
            counts = counts.astype(np.int32)
            counts[self._places[first:last] - start] = self._large[first:last]
        return counts

    def all(self) -> list[bytes]:
        """All words, in order; errors as for `find`."""
        self._prove_tables()
        bounds = pairwise(self._strings.offsets.tolist())
        view = self._strings.blob.tobytes()
        words = [view[start:stop] for start, stop in bounds]
        if self._guards and any(left >= right for left, right in pairwise(words)):
            raise damaged(self._guards["word_bytes"].path, "words out of order")
        return words

    def prove(self) -> None:
        """Prove all that is not proven yet; errors as for `find`."""
        self._prove_tables()
        self.postings.prove()

    def _prove_tables(self) -> None:
        if self._proven:
            return
        guards = self._guards
        for name in ("word_indptr", "word_lengths", "word_large_places", "word_large_counts"):
            guards[name].prove()
        self._strings.prove()
        indptr, places = self.postings.indptr, self._places
        if (indptr[1:] < indptr[:-1]).any():
            raise damaged(guards["word_indptr"].path, "offsets that descend")
        if len(self._lengths) and self._lengths.min() < 0:
            raise damaged(guards["word_lengths"].path, "a length below 0")
        if len(places) and (
            places[0] < 0 or places[-1] >= len(self.postings) or (places[1:] <= places[:-1]).any()
        ):
            raise damaged(guards["word_large_places"].path, "places out of range or order")
        if len(places) and self._large.min() < _LARGE:
            raise damaged(guards["word_large_counts"].path, "a count below 255")
        self._proven = True

    def block(self, first: int, last: int) -> sp.csr_matrix:
        """The counts of words ``first`` to ``last``, shape ``(words, documents)``."""
        block = self.postings.block(first, last)
        start, stop = self.postings.indptr[[first, last]].tolist()
        counts = self.counts(start, stop).astype(np.int32)
        return sp.csr_matrix((counts, block.indices, block.indptr), shape=block.shape)


def word_arrays(documents: Sequence[Sequence[str]]) -> dict[str, NDArray[Any]]:
    """The arrays of some documents; each has its words in any order, with repetitions."""
    numbers: defaultdict[str, int] = defaultdict()
    numbers.default_factory = numbers.__len__
    lengths = np.fromiter(map(len, documents), np.int32, len(documents))
    ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    found = np.fromiter(map(numbers.__getitem__, chain.from_iterable(documents)), np.int32, int(ends[-1]))
    words = sorted(numbers)  # by code point, which is the order of their bytes
    rank = np.empty(len(words), dtype=np.int32)
    rank[np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))] = np.arange(len(words))
    shape = (len(documents), len(words))
    lists = sp.csr_matrix((np.ones(len(found), np.int32), rank[found], ends), shape=shape).tocsc()
    lists.sum_duplicates()
    strings = Strings.encode(words)
    counts, places, large = _split_counts(lists.data, 0)
    return {
        "word_bytes": strings.blob,
        "word_offsets": strings.offsets.astype(np.int32),
        "word_indptr": lists.indptr.astype(np.int32),
        "word_rows": lists.indices.astype(np.int32, copy=False),
        "word_counts": counts,
        "word_large_places": places,
        "word_large_counts": large,
        "word_lengths": lengths,
    }


def _split_counts(counts: NDArray[Any], start: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Counts from posting ``start`` on as bytes, and the places and values of those that do not fit."""
    places = np.flatnonzero(counts >= _LARGE)
    large = counts[places].astype(np.int32)
    return np.minimum(counts, _LARGE).astype(np.uint8), (places + start).astype(np.int32), large


def word_array_lengths(documents: int, entry: Mapping[str, int]) -> dict[str, int]:
    """The arrays and their lengths; ``entry`` is what `Words.describe` gave."""
    return {
        "word_bytes": entry["bytes"],
        "word_offsets": entry["words"] + 1,
        "word_indptr": entry["words"] + 1,
        "word_rows": entry["postings"],
        "word_counts": entry["postings"],
        "word_large_places": entry["large"],
        "word_large_counts": entry["large"],
        "word_lengths": documents,
    }


def write_words(segments: Sequence[Words], kept: Sequence[NDArray[np.int64] | None], sinks: Sinks) -> None:
    """Write the words of several segments as those of one.

    Args:
        segments: At least one.
        kept: The documents of each that stay; None for all.
        sinks: Where the arrays go.
    """
    if len(segments) == 1 and kept[0] is None:
        for name, array in segments[0].arrays.items():
            sinks[name].append(array)
        return
    lists = [words.all() for words in segments]
    union = lists[0] if len(lists) == 1 else sorted(set().union(*lists))
    number = dict(zip(union, range(len(union)), strict=True))
    # The number that each word of a segment gets; these ascend, as the words do.
    places = [np.fromiter(map(number.__getitem__, words), np.int64, len(words)) for words in lists]
    ends = np.zeros(len(union) + 1, dtype=np.int64)
    for words, numbers in zip(segments, places, strict=True):
        ends[numbers + 1] += np.diff(words.postings.indptr)
    np.cumsum(ends, out=ends)
    for name in ("word_bytes", "word_rows", "word_counts", "word_large_places", "word_large_counts"):
        _ = sinks[name]
    for name in ("word_offsets", "word_indptr"):
        sinks[name].append(np.zeros(1))
    for first, last in chunks(ends):
        blocks = [
            _spread(words, numbers, first, last) for words, numbers in zip(segments, places, strict=True)
        ]
        chunk = beside(blocks, kept)
        before = sinks["word_rows"].length
        counts, large_places, large = _split_counts(chunk.data, before)
        sinks["word_rows"].append(chunk.indices)
        sinks["word_counts"].append(counts)
        sinks["word_large_places"].append(large_places)
        sinks["word_large_counts"].append(large)
        # A word of deleted documents alone is gone.
        left = np.flatnonzero(np.diff(chunk.indptr))
        sinks["word_indptr"].append(chunk.indptr[left + 1].astype(np.int64) + before)
        blob = [union[first + place] for place in left.tolist()]
        sizes = np.fromiter(map(len, blob), np.int64, len(blob))
        sinks["word_offsets"].append(np.cumsum(sizes) + sinks["word_bytes"].length)
        sinks["word_bytes"].append(np.frombuffer(b"".join(blob), dtype=np.uint8))
    for words, rows in zip(segments, kept, strict=True):
        sinks["word_lengths"].append(words.lengths if rows is None else words.lengths[rows])


def _spread(words: Words, numbers: NDArray[np.int64], first: int, last: int) -> sp.csr_matrix:
    """The counts of the words that are ``first`` to ``last`` of the union; others have empty lists."""
    start, stop = np.searchsorted(numbers, [first, last]).tolist()
    block = words.block(start, stop)
    sizes = np.zeros(last - first + 1, dtype=np.int32)
    sizes[numbers[start:stop] - first + 1] = np.diff(block.indptr)
    arrays = (block.data, block.indices, np.cumsum(sizes, dtype=np.int32))
    return sp.csr_matrix(arrays, shape=(last - first, block.shape[1]))
