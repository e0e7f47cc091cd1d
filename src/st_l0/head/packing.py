"""Documents of different lengths, one after the other in one tensor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

# Tokens multiplied at a time. More are not faster, and fewer read the decoder more often.
_GROUP_TOKENS = 2048
# Logits of one slice of the vocabulary: 2 MiB of float32. On a core with 1 MiB of second level cache the
# speed is the same from half to twice as many, so the machine is not asked. More columns slow short texts
# down.
_SLICE_ELEMENTS, _SLICE_COLUMNS = 1 << 19, 1024


class Group(NamedTuple):
    """A few whole documents that follow each other."""

    documents: slice
    tokens: slice
    lengths: list[int]

    def largest(self, rows: Tensor, out: Tensor) -> None:
        """Write the largest of ``rows`` ``(tokens, entries)`` to ``out`` ``(documents, entries)``."""
        if len(set(self.lengths)) == 1:
            torch.amax(rows.view(len(self.lengths), self.lengths[0], -1), 1, out=out)
            return
        for document, part in enumerate(rows.split(self.lengths)):
            torch.amax(part, 0, out=out[document])


class PackedTokens:
    """Which tokens belong to which document, and how many are multiplied at a time.

    Args:
        lengths: Tokens of each document, above 0.
    """

    def __init__(self, lengths: Sequence[int]) -> None:
        self.lengths = list(lengths)
        self.offsets = list(accumulate(self.lengths, initial=0))
        self.groups: list[Group] = []
        first = 0
        for document in range(1, len(self.lengths) + 1):
            full = document < len(self.lengths) and (
                self.offsets[document + 1] - self.offsets[first] > _GROUP_TOKENS
            )
            if full or document == len(self.lengths):
                documents = slice(first, document)
                tokens = slice(self.offsets[first], self.offsets[document])
                self.groups.append(Group(documents, tokens, self.lengths[documents]))
                first = document

    def __iter__(self) -> Iterator[tuple[int, slice]]:
        """Number and tokens of each document."""
        for document, (start, stop) in enumerate(pairwise(self.offsets)):
            yield document, slice(start, stop)

    def vocabulary_slices(self, vocabulary: int) -> Iterator[slice]:
        """Cut the vocabulary so that the logits of a group stay in the cache between product and max."""
        tokens = max(group.tokens.stop - group.tokens.start for group in self.groups)
        step = min(max(64, _SLICE_ELEMENTS // tokens), _SLICE_COLUMNS)
        for start in range(0, vocabulary, step):
            yield slice(start, min(start + step, vocabulary))

    def repeat(self, values: Tensor) -> Tensor:
        """Give each token the value of its document, ``(documents,)`` to ``(tokens,)``."""
        return values.repeat_interleave(torch.tensor(self.lengths))

    def largest(self, values: Tensor) -> Tensor:
        """Largest of values that are not negative in each document, ``(tokens,)`` to ``(documents,)``."""
        documents = self.repeat(torch.arange(len(self.lengths)))
        out = values.new_zeros(len(self.lengths))
        return out.scatter_reduce_(0, documents, values, "amax")
