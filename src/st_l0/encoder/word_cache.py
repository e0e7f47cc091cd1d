"""Words remembered with their token ids, so that most texts need no tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, TypeAlias

from tokenizers import Tokenizer

_MOST_WORDS = 1 << 15
_LONGEST_WORD = 64

# What `st_l0.encoder.leading_space` puts before GPT-2's pattern.
_SPACE_FIRST = {"type": "Metaspace", "replacement": " ", "prepend_scheme": "first", "split": False}

# Cuts a text into words that the tokenizer treats alone, or ``None`` where that is not proven.
_Split: TypeAlias = Callable[[str], "list[str] | None"]


class WordCache:
    """The token ids of texts, put together from those of their words; exactly what the tokenizer gives.

    That is possible where no token and no rule of the tokenizer reaches over a space, which is proven for two
    kinds of tokenizers, from their parts:

    - WordPiece with BERT's normalizer and pre-tokenizer. The normalizer works on one character at a time, but
      for the decomposition of accents, which moves marks only between two base characters, and a space is
      one. The pre-tokenizer cuts at every space and the model sees one piece at a time.
    - Byte-level BPE with GPT-2's pattern (RoBERTa, ModernBERT), without a normalizer or with NFC, in which
      nothing combines with a space. A space between two words always begins a piece, and no piece goes on
      after one; here a word takes the space before it along. The first one may be given a space (see
      `st_l0.encoder.leading_space`), which words with one of their own are not.

    Tokens that were added are searched in the whole text, so they must not hold a space themselves. A text
    with a character that Python does not count as printable (controls, line breaks, other spaces, joiners,
    characters newer than Python) goes through the tokenizer as it is, and so does every text of another
    tokenizer.

    At most 32,768 words of at most 64 characters are remembered (about 12 MB, at the very worst 80 MB); then
    it starts anew. Threads may share it.

    Args:
        tokenizer: What gives the ids of a word; without special tokens, truncation or padding.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._split = _splitter(json.loads(tokenizer.to_str()))
        self._known: dict[str, tuple[int, ...]] = {}

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, in order, with repetitions."""
        split, find = self._split, self._known.__getitem__
        rows: list[list[int]] = []
        late: list[int] = []
        for text in texts:
            words = split(text)
            if words is not None:
                try:
                    rows.append(list(chain.from_iterable(map(find, words))))
                    continue
                except KeyError:  # a new word
                    pass
            late.append(len(rows))
            rows.append([])
        if late:
            for place, row in zip(late, self._learn([texts[place] for place in late]), strict=True):
                rows[place] = row
        return rows

    def _learn(self, texts: list[str]) -> list[list[int]]:
        splits = [self._split(text) for text in texts]
        # What is found now is kept here: another thread may start the cache anew in between.
        found = {word: self._known.get(word) for words in splits if words is not None for word in words}
        new = [word for word, ids in found.items() if ids is None]
        whole = [text for text, words in zip(texts, splits, strict=True) if words is None]
        rows = self._tokenize([*new, *whole])
        for word, row in zip(new, rows, strict=False):
            found[word] = ids = tuple(row)
            if len(word) <= _LONGEST_WORD:
                if len(self._known) >= _MOST_WORDS:
                    self._known.clear()
                self._known[word] = ids
        rest = iter(rows[len(new) :])
        return [
            next(rest) if words is None else [token for word in words for token in found[word] or ()]
            for words in splits
        ]

    def _tokenize(self, texts: list[str]) -> list[list[int]]:
        if len(texts) < 32:  # not worth other threads
            return [self._tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
        return [one.ids for one in self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


def _splitter(tokenizer: dict[str, Any]) -> _Split:
    """Find how texts may be cut, from the parts of a tokenizer as they stand in its JSON."""
    normalizer, pieces, model = (tokenizer[name] or {} for name in ("normalizer", "pre_tokenizer", "model"))
    if pieces.get("type") == "Sequence" and pieces["pretokenizers"][:-1] == [_SPACE_FIRST]:
        pieces = pieces["pretokenizers"][-1]
    kinds = (normalizer.get("type"), pieces.get("type"), model["type"])
    split: _Split = _never
    if kinds == ("BertNormalizer", "BertPreTokenizer", "WordPiece"):
        split = _between_spaces
    elif kinds in ((None, "ByteLevel", "BPE"), ("NFC", "ByteLevel", "BPE")) and (
        pieces["use_regex"],
        pieces["add_prefix_space"],
        model["dropout"],
    ) == (True, False, None):
        split = _before_spaces
    for token in tokenizer["added_tokens"]:
        content = token["content"]
        # ASCII, because normalizing that makes no spaces; `rstrip` takes the space that begins the next word.
        alone = content.isascii() and content.isprintable() and " " not in content and not token["rstrip"]
        if not alone and not (split is _before_spaces and "  " in content):  # in no text that is cut there
            return _never
    return split


def _never(text: str) -> None:
    return None


def _between_spaces(text: str) -> list[str] | None:
    return text.split() if text.isprintable() else None


def _before_spaces(text: str) -> list[str] | None:
    # Two spaces in a row are cut in another way. A printable text holds no line break to get in the way.
    return text.replace(" ", "\n ").split("\n") if text.isprintable() and "  " not in text else None
