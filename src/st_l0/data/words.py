"""BM25's words: one way to split texts, and the constants that go with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from st_l0.errors import require

K1, B = 1.2, 0.75


class WordSplitter:
    """Texts into English words for BM25: lower case, without stop words, stemmed by Snowball.

    Raises:
        MissingExtraError: the extra ``eval`` is not installed.
    """

    def __init__(self) -> None:
        self._bm25s: Any = require("bm25s", "eval")
        self._stemmer = require("Stemmer", "eval").Stemmer("english")

    def __call__(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text, in order, with repetitions."""
        words: list[list[str]] = self._split(texts, return_ids=False, show_progress=False)
        return words

    def tokenized(self, texts: Sequence[str], *, progress: bool = False) -> Any:
        """The same as ``bm25s.tokenization.Tokenized``: numbers of words and a vocabulary."""
        return self._split(texts, show_progress=progress)

    def _split(self, texts: Sequence[str], **options: Any) -> Any:
        return self._bm25s.tokenize(list(texts), stopwords="en", stemmer=self._stemmer, **options)
