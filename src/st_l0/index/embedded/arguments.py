"""What the methods of an index are given, in one form, or refused by name and place."""

from __future__ import annotations

import json
import operator
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from st_l0.errors import InputError
from st_l0.index.protocol import Id, Ids
from st_l0.utils.inputs import as_list, describe
from st_l0.utils.paths import local_path


def as_count(value: Any, name: str) -> int:
    """A whole number of at least 1, of Python's or of numpy's.

    Raises:
        InputError: It is below, or something else: a bool, a float, a string, None.
    """
    try:
        number = 0 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{name} must be a whole number of at least 1, not {value!r:.40}")
    return number


def as_path(value: Any) -> Path:
    """The folder that is meant.

    Raises:
        InputError: It is no path, or an empty one, which would be the present folder.
    """
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise InputError(f"{value!r:.40} is no path of a folder; give a str or a Path")
    return local_path(path)


def as_ids(ids: Ids, *, ordered: bool = False) -> list[Id]:
    """Plain str or int ids, all of one kind.

    Args:
        ids: Anything that holds ids: a list, an array or tensor, a column, the keys of a dictionary.
        ordered: Whether each belongs to a vector, so that a set will not do.

    Raises:
        InputError: An id is neither str nor int, or of the other kind than those before it; ``ids`` is one id
            alone, or nothing that holds ids.
    """
    if isinstance(ids, str | bytes):
        raise InputError(f"ids must be a list of ids, not the single {ids!r:.40}")
    if ordered and isinstance(ids, set | frozenset):
        raise InputError("ids must be in the order of the vectors, which a set has not: give a list")
    if not isinstance(ids, Iterable) or getattr(ids, "ndim", 1) != 1:
        shape = getattr(ids, "shape", None)
        what = f"{ids!r:.40}" if shape is None else f"a {type(ids).__name__} of shape {tuple(shape)}"
        raise InputError(f"ids must be a list of ids, not {what}")
    plain: Any = ids
    values: list[Any] = plain.tolist() if hasattr(plain, "tolist") else list(ids)
    kinds = set(map(type, values))
    if all(issubclass(kind, str) for kind in kinds):
        return values
    if all(issubclass(kind, int | np.integer) and kind is not bool for kind in kinds):
        numbers = [int(value) for value in values]
        if min(numbers) < -(2**63) or max(numbers) >= 2**63:
            raise InputError("an int id does not fit into 64 bits: use str ids")
        return list[Id](numbers)
    found = list(map(_kind, values))
    first = next(filter(None, found), None)
    place = next(place for place, kind in enumerate(found) if kind is None or kind != first)
    raise InputError(
        f"ids must be all str or all int, not {' and '.join(sorted(kind.__name__ for kind in kinds))}: "
        f"number {place} is {describe(values[place])}"
    )


def _kind(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    return "str" if isinstance(value, str) else "int" if isinstance(value, int | np.integer) else None


def unique(ids: list[Id]) -> list[Id]:
    """The same ids; InputError if one is there twice."""
    if len(set(ids)) < len(ids):
        seen: set[Id] = set()
        twice = next(id for id in ids if id in seen or seen.add(id))  # type: ignore[func-returns-value]
        raise InputError(f"id {twice!r} is given more than once")
    return ids


def as_stored_texts(texts: Any) -> list[str | None]:
    """Texts to keep beside documents; None where there is none. Lone surrogates are kept too.

    Raises:
        InputError: One is no string, or these are no texts in an order.
    """
    values = as_list(texts)
    for place, value in enumerate(values):
        if value is not None and not isinstance(value, str):
            raise InputError(
                f"text {place} is {describe(value)}, no string: give one, or None where there is none"
            )
    return values


def as_json(metadata: Any) -> dict[str, Any]:
    """A copy of a JSON object.

    Raises:
        InputError: It is none.
    """
    if not isinstance(metadata, Mapping):
        raise InputError(f"metadata must be a JSON object (a dictionary), not {describe(metadata)}")
    try:
        copy: dict[str, Any] = json.loads(json.dumps(dict(metadata), allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"metadata must be a JSON object: {error}") from error
    return copy
