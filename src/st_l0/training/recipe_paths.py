"""Paths in recipes, where no shell puts anything in the place of ``~`` and variables."""

from __future__ import annotations

from typing import Any

from st_l0.errors import InputError
from st_l0.training.settings import SettingError
from st_l0.training.yaml_text import Key
from st_l0.utils.paths import local_name


def local_names(value: Any, key: Key = ()) -> Any:
    """A path or name of the Hub, or a tuple of them, see `local_name`; what is no text stays.

    Raises:
        SettingError: One cannot be used.
    """
    if isinstance(value, tuple):
        return tuple(local_names(one, key) for one in value)
    if not isinstance(value, str):
        return value
    try:
        return local_name(value)
    except InputError as error:
        raise SettingError(f"cannot be used: {error}", key) from None


def local_teachers(specs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same of the model in ``kind:model``; what is no text stays.

    Raises:
        SettingError: One cannot be used.
    """
    return tuple(_local_teacher(spec) if isinstance(spec, str) else spec for spec in specs)


def _local_teacher(spec: str) -> str:
    kind, colon, model = spec.partition(":")
    return f"{kind}{colon}{local_names(model) if model else model}"
