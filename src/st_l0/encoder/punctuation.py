"""Punctuation in query weights: models light "?" or brackets in nearly every document, to no use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from unicodedata import category

import numpy as np

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN = re.compile("[0-9A-Za-z]")  # itself in every kind of vocabulary


def punctuation_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Ids of the tokens that are punctuation: all their characters are punctuation or symbols in Unicode.

    That is category P or S (``?``, ``##,``, ``...``, ``€``, ``→``). What marks the place in a word (``##``, a
    leading space) does not count; half a character of a byte-level vocabulary is none. Of the 30,522 tokens
    of bert-base-uncased 335 are.

    Args:
        tokenizer: Of transformers. Special tokens are left out.
    """
    special = set(tokenizer.all_special_ids)
    return [
        number
        for token, number in tokenizer.get_vocab().items()
        if number not in special
        and not _PLAIN.search(token)
        and _is_punctuation(tokenizer.convert_tokens_to_string([token]).strip())
    ]


def silence_punctuation(weights: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> None:
    """Set the query weights of punctuation, of ``(vocabulary,)``, to 0."""
    weights[punctuation_ids(tokenizer)] = 0


def has_punctuation(weights: np.ndarray, tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether any punctuation weighs something in a table ``(vocabulary,)``."""
    return bool(weights[punctuation_ids(tokenizer)].any())


def _is_punctuation(text: str) -> bool:
    if text.startswith("##") and len(text) > 2:  # of WordPiece; of another vocabulary it is punctuation too
        text = text[2:]
    return text != "" and all(category(one)[0] in "PS" and one != "\ufffd" for one in text)
