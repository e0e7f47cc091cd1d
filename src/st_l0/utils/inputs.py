"""Texts as people have them, brought into one form where they enter: a list of strings."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

from st_l0.errors import InputError
from st_l0.utils.batches import batched

_TOGETHER = 4096  # texts checked in one go; they are copied for it


def is_one_text(given: object) -> bool:
    """Whether this is one text, not many: a string, or sentence-transformers' ``{"text": ...}``."""
    return isinstance(given, str) or (isinstance(given, Mapping) and given.keys() == {"text"})


def as_texts(given: Any, noun: str = "text", names: Iterable[Hashable] | None = None) -> list[str]:
    """Bring texts into a list, or say which of them is none.

    Args:
        given: A list or anything else that has an order: a tuple, a generator, a numpy array, a column of
            pandas, datasets or Arrow. An item may be ``{"text": ...}``, as in sentence-transformers.
        noun: What a text is called in complaints.
        names: What each of them is called there; None counts them from 0.

    Returns:
        The texts; ``given`` itself where it is such a list already.

    Raises:
        InputError: ``given`` is no list of texts (one text alone, a dictionary, a set, a table …), or one of
            them is no string (None, NaN, a number, bytes, a list …) or holds a lone surrogate.

    Example:
        >>> as_texts(text for text in ("rain", "sun"))
        ['rain', 'sun']
    """
    texts = as_list(given)
    for start in range(0, len(texts), _TOGETHER):
        try:
            # Joining them refuses what is no string, in a sixth of the time of asking each.
            some = "".join(texts[start : start + _TOGETHER])
            if not some.isascii():
                some.encode()
        except (TypeError, UnicodeEncodeError):
            called = range(len(texts)) if names is None else names
            return [_text(text, f"{noun} {name!r:.60}") for text, name in zip(texts, called, strict=True)]
    return texts


def text_batches(given: Any, size: int, noun: str = "text") -> Iterator[list[str]]:
    """Cut a stream of texts into lists of at most ``size``; errors as for `as_texts`."""
    start = 0
    for batch in batched(_ordered(given), size):
        yield as_texts(batch, noun, range(start, start + len(batch)))
        start += len(batch)


def as_list(given: Any) -> list[Any]:
    """The items of anything that has some in an order; errors as for `as_texts`, but for the items."""
    if type(given) is list:
        return given
    items = _ordered(given)
    for plain in ("tolist", "to_pylist"):  # of numpy, pandas and torch; of Arrow, whose items are no strings
        if hasattr(items, plain):
            return cast(list[Any], getattr(items, plain)())
    return list(items)


def _ordered(given: Any) -> Iterable[Any]:
    """What was given, if it has items in an order, and these are what is meant."""
    kind = type(given).__name__
    if isinstance(given, str):
        raise InputError(f"{given!r:.40} is one text where a list of texts is expected: give [{given!r:.40}]")
    if isinstance(given, bytes | bytearray | memoryview):
        raise InputError(f"{kind} is no list of texts: decode it first")
    if isinstance(given, Mapping):
        keys = ", ".join(f"{key!r:.40}" for key in list(given)[:3]) + (", …" if len(given) > 3 else "")
        raise InputError(
            f"a {kind} (of {keys or 'nothing'}) is no list of texts: give its values, list(it.values())"
        )
    if hasattr(given, "columns") or hasattr(given, "column_names"):
        raise InputError(f"a {kind} is a table, no list of texts: give the column that holds them")
    if isinstance(given, set | frozenset):
        raise InputError(f"a {kind} has no order: give a list of texts")
    if not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise InputError(f"{describe(given)} is no list of texts: give a list of strings")
    return given


def _text(item: Any, name: str) -> str:
    if isinstance(item, Mapping) and item.keys() == {"text"}:
        item = item["text"]
    if not isinstance(item, str):
        raise InputError(
            f"{name} is {describe(item)}, no string: give one, which may be empty, or leave it out"
        )
    try:
        item.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{name} holds a lone surrogate, {item[error.start]!a} at character {error.start}, which is no "
            "character: mend it, as by text.encode('utf-8', 'replace').decode()"
        ) from None
    return item


def describe(item: Any) -> str:
    """A value in a few words, for complaints."""
    if isinstance(item, Mapping):
        return f"a dictionary of {', '.join(map(repr, list(item)[:3])) or 'nothing'}"[:80]
    if isinstance(item, bytes | bytearray):
        return "bytes"
    if isinstance(item, Sequence) and not isinstance(item, str):
        return f"a {type(item).__name__}"
    shown = " ".join(repr(item).split())
    if item is None or shown in ("nan", "<NA>", "NaT"):
        return shown
    kind = type(item).__name__
    return f"a {kind}" if shown.startswith("<") else f"{shown:.40} ({kind})"
