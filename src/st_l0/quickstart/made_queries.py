"""Queries made of documents, for those who have nothing but documents.

A title and a sentence are taken out of the document that they are the query for, or a text would have to be
found by itself. Single words of them may well occur in it, as they do in what real queries find.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Literal, NamedTuple

from st_l0.data import Document
from st_l0.index.calibration import first_sentence

_TITLE_WORDS = range(2, 21)
_SENTENCE_WORDS = range(4, 33)
_CUT_WORDS = 12  # of a text that has no sentences
_LEAST_LEFT = 8  # words of a document without its query
_KEY_WORDS = (2, 3, 4)
_WORD = re.compile(r"[^\W\d_]{3,}")
_COMMON = 0.1  # share of the documents from which on a word says little


class MadeQuery(NamedTuple):
    """A query, and what is left of the document that it was made of.

    Attributes:
        id: Of the document.
        kind: What it was made of: ``"title"``, first ``"sentence"`` or key ``"words"``.
        query: The query.
        document: The document without its title, and without the sentence that is the query; key words stay.
    """

    id: str
    kind: Literal["title", "sentence", "words"]
    query: str
    document: str


def body_of(document: Document) -> str:
    """A document without its title, and without the sentence that merely repeats it.

    Example:
        >>> body_of(Document("1", "Rain. rain. It falls in drops.", "Rain."))
        'It falls in drops.'
    """
    body = document.text[len(document.title) :].strip()
    title = document.title.casefold()
    return body[len(title) :].strip() if title and body.casefold().startswith(title) else body


def from_title(document: Document) -> MadeQuery | None:
    """A title as the query for what stands below it; None where one of the two is too short or too long."""
    query, body = " ".join(document.title.split()), body_of(document)
    if len(query.split()) not in _TITLE_WORDS or len(body.split()) < _LEAST_LEFT:
        return None
    return MadeQuery(document.id, "title", query, body)


def from_sentence(document: Document) -> MadeQuery | None:
    """The first sentence as the query for the rest; None where one of the two is too short.

    Of a single sentence, and of a text without sentences, the first third is the query, 12 words at most.
    """
    words = (body := body_of(document)).split()
    length = len(first_sentence(body).split())
    if length not in _SENTENCE_WORDS or len(words) - length < _LEAST_LEFT or length == _SENTENCE_WORDS[-1]:
        length = min(_CUT_WORDS, len(words) // 3)
    if length not in _SENTENCE_WORDS or len(words) - length < _LEAST_LEFT:
        return None
    return MadeQuery(document.id, "sentence", " ".join(words[:length]), " ".join(words[length:]))


class KeyWords:
    """The words that tell a document from others, by how seldom they are.

    Args:
        documents: What is counted.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = 0
        self._frequencies: Counter[str] = Counter()
        for self._documents, document in enumerate(documents, 1):
            self._frequencies.update(set(_WORD.findall(body_of(document).casefold())))

    def query(self, document: Document, draw: random.Random) -> MadeQuery | None:
        """Two to four key words as the query for a whole document; None where it has no two.

        A word that no other document has, or more than a tenth of them, is none.
        """
        body = body_of(document)
        counts = Counter(_WORD.findall(body.casefold()))
        weights = {
            word: count * math.log(self._documents / self._frequencies[word])
            for word, count in counts.items()
            if 2 <= self._frequencies[word] <= _COMMON * self._documents
        }
        best = set(sorted(weights, key=lambda word: (-weights[word], word))[: draw.choice(_KEY_WORDS)])
        if len(best) < _KEY_WORDS[0] or len(body.split()) < _LEAST_LEFT:
            return None
        return MadeQuery(document.id, "words", " ".join(word for word in counts if word in best), body)


def all_queries(documents: Sequence[Document], titled: Container[str], seed: int = 0) -> list[MadeQuery]:
    """Every query that can be made of documents, one of each kind at most; none that two documents give.

    Args:
        documents: The documents.
        titled: Ids of those whose title may be a query.
        seed: Of the number of key words.
    """
    draw = random.Random(seed)
    key_words = KeyWords(documents)
    made: list[MadeQuery] = []
    for one in documents:
        title = from_title(one) if one.id in titled else None
        made += filter(None, (title, from_sentence(one), key_words.query(one, draw)))
    counts = Counter(one.query.casefold() for one in made)
    return [one for one in made if counts[one.query.casefold()] == 1]
