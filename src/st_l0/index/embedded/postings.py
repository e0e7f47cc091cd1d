"""Postings: which documents have each term, a list a term, and what of it.

What was read from files is proven once, before its first use: a row beyond the documents would make the
kernel write outside of its array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.index.embedded.checksums import Guard, damaged

_CHUNK_POSTINGS = 1 << 22  # merging works on that many postings at a time, 32 MB
_FEW_POSTINGS = 1 << 21  # with so few, the first query lies in most blocks: all are proven then


class Postings:
    """The lists of all terms, back to back; the list of term ``t`` lies in ``indptr[t]:indptr[t + 1]``.

    Args:
        indptr: From 0 to the number of postings, ascending, shape ``(terms + 1,)``.
        rows: Document of each posting, ascending within a list, shape ``(postings,)``.
        values: What each posting says of its document, shape ``(postings,)``.
        documents: How many there are; rows are below.
        guards: Those of ``rows`` and ``values``, by these names, if they come from files.
    """

    def __init__(
        self,
        indptr: NDArray[np.integer[Any]],
        rows: NDArray[np.int32],
        values: NDArray[Any],
        documents: int,
        guards: Mapping[str, Guard] | None = None,
    ) -> None:
        self.indptr = indptr
        self.rows = rows
        self.values = values
        self.documents = documents
        self._guards = guards or {}
        self._unproven = np.ones(len(indptr) - 1, dtype=bool) if guards else None  # terms

    def __len__(self) -> int:
        return len(self.rows)

    def prove_lists(self, terms: NDArray[np.integer[Any]]) -> None:
        """Prove the lists of some terms, unless that was done before.

        Threads may do so at once: at worst two of them prove the same.

        Raises:
            InputError: A file is damaged.
        """
        unproven = self._unproven
        if unproven is None or 1 not in unproven.take(terms).tobytes():  # the fastest way to ask, 1 µs
            return
        if len(self.rows) <= _FEW_POSTINGS:
            self.prove()
            return
        for term in terms[unproven[terms]].tolist():
            self._prove(term, term + 1)
            unproven[term] = False

    def prove(self) -> None:
        """Prove all that is not proven yet; errors as for `prove_lists`."""
        if self._unproven is not None:
            for first, last in chunks(self.indptr):
                self._prove(first, last)
            self._unproven = None

    def _prove(self, first: int, last: int) -> None:
        """Prove the lists of terms ``first`` to ``last``."""
        start, stop = self.indptr[[first, last]].tolist()
        if start == stop:
            return
        for guard in self._guards.values():
            guard.prove(start, stop)
        rows = self.rows[start:stop]
        ascends = rows[1:] > rows[:-1]
        heads = self.indptr[first + 1 : last] - start  # where the list of the next term begins
        ascends[heads[(heads > 0) & (heads < len(rows))] - 1] = True
        if rows.min() < 0 or rows.max() >= self.documents or not ascends.all():
            raise damaged(self._guards["rows"].path, "rows out of range or order")
        values = self.values[start:stop]
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise damaged(self._guards["values"].path, "a weight that is not finite")
        if values.dtype.kind == "u" and not values.all():
            raise damaged(self._guards["values"].path, "a count of 0")

    def block(self, first: int, last: int) -> sp.csr_matrix:
        """The lists of terms ``first`` to ``last``, shape ``(terms, documents)``."""
        indptr = self.indptr[first : last + 1]
        start, stop = indptr[[0, -1]].tolist()
        arrays = (self.values[start:stop], self.rows[start:stop], (indptr - start).astype(np.int32))
        return sp.csr_matrix(arrays, shape=(last - first, self.documents))


def chunks(indptr: NDArray[np.integer[Any]]) -> Iterator[tuple[int, int]]:
    """All terms as ranges, each of about ``_CHUNK_POSTINGS`` postings."""
    first, terms = 0, len(indptr) - 1
    while first < terms:
        last = int(np.searchsorted(indptr, int(indptr[first]) + _CHUNK_POSTINGS, side="right")) - 1
        last = min(max(last, first + 1), terms)
        yield first, last
        first = last


def beside(blocks: Sequence[sp.csr_matrix], kept: Sequence[NDArray[np.int64] | None]) -> sp.csr_matrix:
    """The lists of several segments as those of one.

    Args:
        blocks: One a segment, all of the same terms, each of shape ``(terms, documents)``.
        kept: The documents of each that stay; None for all.
    """
    left = [block if rows is None else block[:, rows] for block, rows in zip(blocks, kept, strict=True)]
    return left[0] if len(left) == 1 else sp.hstack(left, format="csr")
