"""Sentences of documents, for want of more queries."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Container, Iterable, Sequence

from st_l0.errors import InputError
from st_l0.utils.progress import track

_ENDS = re.compile(r"(?<=[.!?])\s+|(?<=[。！？])|\n+")
_SHORTEST, _LONGEST = 20, 300  # characters


def sentences_of(text: str) -> list[str]:
    """The sentences of a text that have 20 to 300 characters.

    A sentence ends at a mark with white space behind it, or at the end of a line; an abbreviation ends one,
    too.

    Example:
        >>> sentences_of("Short one. An index lists words with documents! A query is looked up in a table")
        ['An index lists words with documents!', 'A query is looked up in a table']
    """
    found = (" ".join(part.split()) for part in _ENDS.split(text))
    return [sentence for sentence in found if _SHORTEST <= len(sentence) <= _LONGEST]


def choose_sentences(
    documents: Iterable[str],
    number: int,
    *,
    seed: int,
    others: Container[str] = (),
    usable: Callable[[list[str]], Sequence[bool]] | None = None,
) -> list[str]:
    """Draw different sentences of documents, every one with the same chance.

    The draw follows from the sentences and the seed, not from the order of the documents, and of fewer
    documents it takes those of the same sentences that are left, and more.

    Args:
        documents: Texts, streamed; none needs to be there once only.
        number: Sentences to draw; all, where there are fewer.
        seed: Another one draws others.
        others: Sentences to leave out, such as queries that are known already.
        usable: Says which of some sentences can be drawn at all; ``None``: all.

    Raises:
        InputError: ``number`` is less than 1.
    """
    if number < 1:
        raise InputError(f"number of sentences is {number}; give 1 or more")
    salt = seed.to_bytes(8, "little")
    kept: dict[bytes, str] = {}
    most: bytes | None = None
    for text in track(documents, "drawing sentences", unit="documents", delay=2):
        new = {}
        for sentence in sentences_of(text):
            key = hashlib.blake2b(sentence.encode(), key=salt, digest_size=16).digest()
            if (most is None or key < most) and key not in kept and sentence not in others:
                new[key] = sentence
        if usable is not None and new:
            flags = usable(list(new.values()))
            new = {key: sentence for (key, sentence), flag in zip(new.items(), flags, strict=True) if flag}
        kept.update(new)
        if len(kept) > 2 * number:  # what is too large now will be so at the end
            kept = dict(sorted(kept.items())[:number])
            most = next(reversed(kept))
    return [sentence for _, sentence in sorted(kept.items())[:number]]
