"""What a quickstart trains on, measures on and indexes, wherever it comes from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from st_l0.data import Collection, Document

UNSEEN = "unseen"


class Material(NamedTuple):
    """All that a quickstart needs.

    Attributes:
        documents: Everything that is indexed, and counted for the IDF; can be read again.
        pairs: Queries and documents to train on.
        unseen: The collection to measure on, called ``unseen``; training sees none of its queries' documents.
        held_out: What training does not see, for people, such as ``"the unseen modules"``.
        max_seq_length: Tokens of a document that the model reads.
        found: What was found, for people, a line each.
        caveats: What to know of the numbers, likewise.
        questions: To show a few answers.
    """

    documents: Iterable[Document]
    pairs: Sequence[tuple[str, str]]
    unseen: Collection
    held_out: str
    max_seq_length: int
    found: Sequence[str]
    caveats: Sequence[str]
    questions: Sequence[str]


def fraction(text: str) -> float:
    """A number within [0, 1) that depends on the text only."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
