"""Tokenizers that make another token of the first word of a text than of the same word further on.

Byte-level and SentencePiece vocabularies keep the space before a word in its token. A query is short, so that
its first word, which has no space before it, would be searched under a token that few documents have, and
that weighs the most for that.

The cure is a step ahead of the tokenizer's own pre-tokenizer that puts a space before a text, which stands in
``tokenizer.json``, where transformers, sentence-transformers, the tokenizers library and OpenSearch read it.
Neither ``add_prefix_space`` nor a normalizer would do: the former puts a space before every piece where a
pattern cuts the text first (o200k, Llama 3), the latter changes what tokens that were added match.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from st_l0.errors import InputError

logger = logging.getLogger(__name__)

_WORDS = ("what", "the", "Water", "x")
_SPACES = (" ", "\u2581")  # as the pre-tokenizer sees one: the latter where a normalizer wrote it


def inside_text(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that takes the first word of a text as if others stood before it.

    Whether it needs a cure is tried on a few words, whatever the kind of the tokenizer.

    Args:
        tokenizer: It is left unchanged.

    Returns:
        The same one, if it does so already, or a copy that does.

    Raises:
        InputError: It cannot be made to.
    """
    if not first_word_differs(tokenizer):
        return tokenizer
    with _uncut(tokenizer):
        expected = [_ids(tokenizer, f"{word} {word}")[len(_ids(tokenizer, word)) :] for word in _WORDS]
    before = tokenizer.pre_tokenizer
    for space in _SPACES:
        cured = Tokenizer.from_str(tokenizer.to_str())
        first = pre_tokenizers.Metaspace(replacement=space, prepend_scheme="first", split=False)
        cured.pre_tokenizer = first if before is None else pre_tokenizers.Sequence([first, before])
        with _uncut(cured):
            found = [_ids(cured, word) for word in _WORDS]
        if found == expected and not first_word_differs(cured):
            return cured
    raise InputError(
        "the tokenizer makes another token of the first word of a query than of the same word in a document, "
        "and a space before the text does not help: give a base model with another vocabulary"
    )


def first_word_differs(tokenizer: Tokenizer) -> bool:
    """Whether a word at the beginning of a text gets other tokens than the same word after another."""
    with _uncut(tokenizer):
        return any(_ids(tokenizer, f"{word} {word}") != 2 * _ids(tokenizer, word) for word in _WORDS)


def cure_tokenizer(tokenizer: Any) -> Any:
    """`inside_text` for a tokenizer of transformers.

    What was changed is of the class that reads all of ``tokenizer.json``: others, such as RoBERTa's, build
    their pre-tokenizer anew when they are loaded.

    Raises:
        InputError: As in `inside_text`.
    """
    if not tokenizer.is_fast:  # no query can go through it but through the model as well
        return tokenizer
    plain = inside_text(tokenizer.backend_tokenizer)
    if plain is tokenizer.backend_tokenizer:
        return tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = ("model_input_names", "model_max_length", "padding_side", "truncation_side")
    return PreTrainedTokenizerFast(
        tokenizer_object=plain,
        **{name: getattr(tokenizer, name) for name in settings},
        **tokenizer.special_tokens_map,
        clean_up_tokenization_spaces=False,
    )


@cache
def tell_first_words(source: str) -> None:
    """Say once a process that a checkpoint was made without the cure."""
    logger.warning(
        "%s: the first word of a query is another token than in a text, as this checkpoint was trained; "
        "a model that is trained now has no such flaw",
        source,
    )


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


@contextmanager
def _uncut(tokenizer: Tokenizer) -> Iterator[None]:
    """Without the truncation and padding that a call may have left, which come back afterwards."""
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)
