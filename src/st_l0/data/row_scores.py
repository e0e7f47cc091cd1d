"""The scores of a row of training data, in the forms that are in use."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from st_l0.data.columns import HOW, Keys
from st_l0.data.names import normal
from st_l0.errors import InputError

_LARGEST = float(np.finfo(np.float32).max)


class Shape(NamedTuple):
    """What of a row its scores are for.

    Attributes:
        first: Positives; where none is named, documents.
        negatives: Documents beside the positives.
        has_positive: Whether the row names a positive.
        called: Whether it is called the positive; if not, it is one for want of other documents.
    """

    first: int
    negatives: int
    has_positive: bool
    called: bool


def split_scores(place: str, record: Mapping[str, Any], keys: Keys, shape: Shape) -> list[list[float] | None]:
    """The scores of each row that a record makes: one row for each positive, or one of all documents.

    Scores are a list, a number for each document, or one number where there is one document. With one
    positive and its negatives they may be margins, as sentence-transformers has them (but not under
    ``scores``): a number for each negative, by which the positive scores higher. The positive's score is then
    0, since only differences count where scores are used. A whole number under ``label`` beside one document,
    or beside one that is not called positive, says whether it is right; it is no score.

    Args:
        place: What complaints begin with.
        record: The record; values that are null are left out.
        keys: Its keys, by our words.
        shape: How many documents there are, and of what kind.

    Raises:
        InputError: there are not as many finite numbers as documents, or a label says that the document is
            wrong.
    """
    [own] = keys.get("scores") or (None,)
    apart = [key for word in ("positive_scores", "negative_scores") for key in keys.get(word, ())]
    if own is not None and apart:
        raise InputError(f"{place}: has both {own} and {apart[0]}; give one of them, or ignore one {HOW}")
    values: list[float] | None = None
    if apart:
        values = _of_both(place, record, keys, shape)
    elif own is not None:
        values = _of_one(place, own, _value(record[own]), shape)
    if not shape.has_positive:
        return [values]
    if values is None:
        return [None] * shape.first
    return [[value, *values[shape.first :]] for value in values[: shape.first]]


def _of_both(place: str, record: Mapping[str, Any], keys: Keys, shape: Shape) -> list[float]:
    """Scores of positives and negatives under keys of their own."""
    values: list[float] = []
    for word, count in (("positive_scores", shape.first), ("negative_scores", shape.negatives)):
        [key] = keys.get(word) or (None,)
        found = [] if key is None else _value(record[key])
        found = found if isinstance(found, list) else [found]
        if len(found) != count or not shape.has_positive:
            what = word.removesuffix("_scores") + "s"
            raise InputError(
                f"{place}: {len(found)} {key or word} for {count if shape.has_positive else 0} {what}; "
                "give one for each"
            )
        values += _numbers(place, key or word, found)
    return values


def _of_one(place: str, key: str, value: Any, shape: Shape) -> list[float] | None:
    documents = shape.first + shape.negatives
    one_positive = shape.has_positive and shape.first == 1
    is_label = normal(key) in ("label", "labels")
    if isinstance(value, str) and is_label:
        return None  # a topic or the like
    if isinstance(value, list):
        if one_positive and len(value) == shape.negatives > 0 and normal(key) != "scores":
            return [0.0, *(0.0 - margin for margin in _numbers(place, key, value))]
        if len(value) != documents:
            raise InputError(f"{place}: {len(value)} {key} for {documents} documents; give one for each")
        return _numbers(place, key, value)
    if not isinstance(value, (int, float)):
        raise InputError(f"{place}: {key} is {type(value).__name__}; give a list")
    if documents == 1:
        if _is_mark(value, is_label, shape.called):
            if value > 0:
                return None
            raise InputError(
                f"{place}: {key} is {value}, which says that the document is wrong; give negatives beside a "
                f"positive, or ignore it {HOW}"
            )
        if not shape.called:
            raise InputError(
                f"{place}: {key} is {value}, a score of one document that is not called positive; give the "
                f"documents of a query in one row, or say which is the positive {HOW}"
            )
        return _numbers(place, key, [value])
    if one_positive and documents == 2 and not _is_mark(value, is_label, called=True):
        return [0.0, 0.0 - _numbers(place, key, [value])[0]]
    raise InputError(f"{place}: {key} is {type(value).__name__}; give a list")


def _is_mark(value: Any, is_label: bool, called: bool) -> bool:
    """Whether a number beside one document says right or wrong (1, 0), and no degree."""
    return isinstance(value, bool) or (float(value).is_integer() and (is_label or not called))


def _value(value: Any) -> Any:
    """A value as it is; of a table, whose cells are texts, the number or the list that it says."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _numbers(place: str, key: str, values: list[Any]) -> list[float]:
    for index, score in enumerate(values):
        number = isinstance(score, (int, float)) and not isinstance(score, bool)
        if not number or not -_LARGEST <= score <= _LARGEST:  # NaN is within no bounds
            raise InputError(f"{place}: {key}[{index}] is {score!r:.40}; give a finite number (float32)")
    return [float(score) for score in values]
