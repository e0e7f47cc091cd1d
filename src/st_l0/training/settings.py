"""Settings from YAML: dataclasses whose type hints and metadata are the whole description of the format.

Nothing here knows which settings there are; `st_l0.training.recipe` declares them.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import math
import re
import reprlib
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from st_l0.errors import InputError
from st_l0.training.yaml_text import Key, Secret, is_secret, parse_yaml, read_text

Types = Mapping[str, Any]

# YAML 1.1 reads `2e-5` as text, since it wants a dot and a signed exponent.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")

# What a float32 holds, in which all of it is computed.
_SMALLEST, _LARGEST = 1.1754944e-38, 3.4028234e38
_UNUSABLE = re.compile("[\0\ud800-\udfff]")  # no file name has them, and no file can hold the latter

_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
    type(None): "null",
}


class SettingError(InputError):
    """A setting that cannot be used.

    Attributes:
        problem: What is wrong, to be read after the name of the key.
        key: Path of the key below the section that raised the error, such as ``("loss", "temperature")``.
    """

    def __init__(self, problem: str, key: Key = ()) -> None:
        super().__init__(problem)
        self.problem = problem
        self.key = key

    def __str__(self) -> str:
        key = ".".join(part if part.isprintable() else ascii(part) for part in self.key)
        return f"{key} {self.problem}" if key else self.problem

    def below(self, name: str) -> SettingError:
        """The same error, seen from the section that holds ``name``."""
        self.key = (name, *self.key)
        return self


class UnknownKey(SettingError):
    """A key that is no setting, with the keys that are known beside it."""

    def __init__(self, name: str, siblings: Sequence[str]) -> None:
        super().__init__("is not a known key", (name,))
        self.siblings = siblings

    def __str__(self) -> str:
        nearest = difflib.get_close_matches(self.key[-1], self.siblings, n=1)
        hint = f"did you mean {'.'.join((*self.key[:-1], *nearest))}?" if nearest else ""
        return f"{super().__str__()}{': ' if hint else ''}{hint}"


@dataclass(frozen=True)
class Section:
    """Base of frozen dataclasses that convert and check each field when they are made.

    A field is described by its type hint and metadata: ``at_least``, ``more_than`` and ``less_than`` bound a
    number (as does ``at_most``); for a ``dict``, ``entries`` and ``help`` are functions that give its keys'
    types and descriptions, ``bounds`` has their bounds, ``fixed`` what to do instead of setting those that
    have one value only, and ``alone`` is the value of a key whose name stands alone. ``then`` is what the
    value goes through at last.

    Raises:
        SettingError: A value has the wrong type, is out of bounds or not finite, or is empty text.
    """

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for spec in dataclasses.fields(self):
            try:
                value = getattr(self, spec.name)
                if "alone" in spec.metadata and isinstance(value, str):
                    value = {value: spec.metadata["alone"]}
                value = convert(value, hints[spec.name])
                if "entries" in spec.metadata:
                    value = _convert_entries(value, spec.metadata)
                elif value in ("", ()):
                    raise SettingError("must not be empty")
                check_bounds(value, spec.metadata)
                value = spec.metadata.get("then", lambda same: same)(value)
            except SettingError as error:
                raise error.below(spec.name) from None
            object.__setattr__(self, spec.name, value)


_S = TypeVar("_S", bound=Section)


def load(section: type[_S], path: str | Path, overrides: Sequence[str] = ()) -> _S:
    """Read a YAML file into a section.

    Args:
        section: The outermost section.
        path: A YAML file.
        overrides: ``"key.path=value"`` strings, applied in order; each value is read as YAML.

    Raises:
        InputError: One line that says where (file and line, or override) and what is wrong.
    """
    source = str(path)
    raw, lines = parse_yaml(read_text(path), source)
    places = {key: f"{source}:{line}" for key, line in lines.items()}
    if not isinstance(raw, dict):
        sections = ", ".join(f"'{spec.name}:'" for spec in dataclasses.fields(section))
        raise InputError(f"{source}: expected the keys {sections}, not {_show(raw)}")
    for override in overrides:
        key, value, place = _parse_override(override)
        changed = _set(raw, key, value, place)
        places = {at: where for at, where in places.items() if at[: len(changed)] != changed}
        places[changed] = place
    try:
        return _build(section, raw)
    except SettingError as error:
        known = (error.key[:length] for length in range(len(error.key), 0, -1))
        where = next((places[key] for key in known if key in places), source)
        raise InputError(f"{where}: {error}{_elsewhere(error, section)}") from None


def convert(value: Any, hint: Any) -> Any:
    """Bring a plain value to the type of a hint; types that are not plain take any value.

    Raises:
        SettingError: ``value`` has another type, is not one of the choices, or is not finite.
    """
    value = value.value if isinstance(value, enum.Enum) else value
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _convert_union(value, arguments)
    if origin is Literal:
        # `True == 1`, so the type has to be the same too.
        if any(value == choice and type(value) is type(choice) for choice in arguments):
            return value
        raise SettingError(f"must be {_choices(arguments, value)}, not {_show(value)}")
    if origin is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple):
            raise SettingError(f"must be a list, not {_show(value)}")
        if "" in items:
            raise SettingError("must not hold empty text")
        return tuple(convert(item, arguments[0]) for item in items)
    if isinstance(hint, type) and issubclass(hint, Section):
        return value if isinstance(value, hint) else _build(hint, value)
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return convert(value, Literal[tuple(choice.value for choice in hint)])
    expected = origin or hint
    if expected not in _NAMES:
        return value
    value = _check_plain(_as_float(value) if expected is float else value, expected)
    if expected is list and arguments:
        return [convert(item, arguments[0]) for item in value]
    if expected is dict and arguments:
        return {name: _convert_value(name, item, arguments) for name, item in value.items()}
    return value


def _convert_value(name: Any, value: Any, hints: tuple[Any, ...]) -> Any:
    try:
        if not isinstance(name, hints[0]) and hints[1] is not Any:
            raise SettingError(f"must be named by {_NAMES[hints[0]]}, not {_show(name)}")
        return convert(value, hints[1])
    except SettingError as error:
        raise error.below(str(name)) from None


def check_bounds(value: Any, bounds: Mapping[str, Any]) -> None:
    """Refuse a number out of its bounds, see `Section`; None and words pass.

    Raises:
        SettingError: ``value`` is out of bounds.
    """
    if value is None or isinstance(value, str):
        return
    if "at_least" in bounds and value < bounds["at_least"]:
        raise SettingError(f"must be at least {bounds['at_least']}, not {_show(value)}")
    if "at_most" in bounds and value > bounds["at_most"]:
        raise SettingError(f"must be at most {bounds['at_most']:,}, not {_show(value)}")
    if "more_than" in bounds and value <= bounds["more_than"]:
        raise SettingError(f"must be more than {bounds['more_than']}, not {_show(value)}")
    if "less_than" in bounds and value >= bounds["less_than"]:
        raise SettingError(f"must be less than {bounds['less_than']}, not {_show(value)}")


def _as_float(value: Any) -> Any:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**53 else math.inf
    return value


def _check_plain(value: Any, expected: Any) -> Any:
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        mend = " (write it in quotes)" if expected is str and isinstance(value, bool | int | float) else ""
        raise SettingError(f"must be {_NAMES[expected]}, not {_show(value)}{mend}")
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingError(f"must be a finite number, not {_show(value)}")
    if isinstance(value, float) and value and not _SMALLEST <= abs(value) <= _LARGEST:
        raise SettingError(f"must be a number that 32 bits can hold, not {_show(value)}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise SettingError(f"must be a number that 64 bits can hold, not {_show(value)}")
    if isinstance(value, str) and _UNUSABLE.search(value):
        raise SettingError(f"must be text that can be written, not {_show(value)}")
    return value


def _convert_union(value: Any, members: tuple[Any, ...]) -> Any:
    # In `SchedulerType | str` the text stands for the names of the enum only.
    if any(isinstance(member, type) and issubclass(member, enum.Enum) for member in members):
        members = tuple(member for member in members if member is not str)
    sections = [member for member in members if isinstance(member, type) and issubclass(member, Section)]
    if sections and isinstance(value, Mapping):
        return convert(value, sections[0])
    errors = []
    for member in sorted(members, key=lambda member: member is type(None)):
        try:
            return convert(value, member)
        except SettingError as error:
            errors.append(error)
    raise errors[0]


def _convert_entries(values: dict[Any, Any], metadata: Mapping[str, Any]) -> dict[str, Any]:
    known, bounds, fixed = metadata["entries"](), metadata.get("bounds", {}), metadata.get("fixed", {})
    converted = {}
    for name, value in values.items():
        if name not in known:
            raise UnknownKey(str(name), list(known))
        try:
            converted[name] = convert(value, known[name])
            check_bounds(converted[name], bounds.get(name, {}))
        except SettingError as error:
            if name in fixed:
                error.problem = f"has no effect: {fixed[name]}"
            elif is_secret(name):
                error.problem = "must be text"
            raise error.below(name) from None
        if is_secret(name) and isinstance(value, str):
            converted[name] = Secret(converted[name])
    return converted


def _build(section: type[_S], values: Any) -> _S:
    if not isinstance(values, Mapping):
        raise SettingError(f"must hold keys, not {_show(values)}")
    specs = {spec.name: spec for spec in dataclasses.fields(section)}
    for name in values:
        if name not in specs:
            raise UnknownKey(str(name), list(specs))
    for name, spec in specs.items():
        given = name in values or spec.default_factory is not dataclasses.MISSING
        if spec.default is dataclasses.MISSING and not given:
            raise SettingError("is missing", (name,))
    return section(**values)


def _elsewhere(error: SettingError, section: type[Section]) -> str:
    """A hint for a key that is unknown here, but known in another section."""
    if not isinstance(error, UnknownKey) or difflib.get_close_matches(error.key[-1], error.siblings, n=1):
        return ""
    names = {key[-1]: ".".join(key) for key in _keys(section)}
    nearest = difflib.get_close_matches(error.key[-1], names, n=1)
    return f": did you mean {names[nearest[0]]}?" if nearest else f": known are {', '.join(error.siblings)}"


def _keys(section: type[Section]) -> Iterator[Key]:
    hints = typing.get_type_hints(section)
    for spec in dataclasses.fields(section):
        entries: Callable[[], Types] = spec.metadata.get("entries", dict)
        yield from ((spec.name, name) for name in entries())
        if isinstance(hints[spec.name], type) and issubclass(hints[spec.name], Section):
            yield from ((spec.name, *key) for key in _keys(hints[spec.name]))
        yield (spec.name,)


def _parse_override(override: str) -> tuple[Key, Any, str]:
    """Its key, its value, and what messages call it."""
    name, separator, text = override.partition("=")
    key = tuple(name.strip().split("."))
    place = f"override '{name}=***'" if any(map(is_secret, key)) else f"override '{override}'"
    if not separator or not all(key):
        raise InputError(f"{place}: write key.path=value, such as training.max_steps=10")
    return key, parse_yaml(text, place)[0], place


def _set(values: dict[str, Any], key: Key, value: Any, place: str) -> Key:
    """Set a nested value; gives the outermost key that did not exist before, or all of ``key``."""
    changed = key
    for depth, part in enumerate(key[:-1], start=1):
        if part not in values:
            values[part] = {}
            changed = min(changed, key[:depth], key=len)
        values = values[part]
        if not isinstance(values, dict):
            raise InputError(f"{place}: {'.'.join(key[:depth])} holds no keys")
    values[key[-1]] = value
    return changed


def _choices(choices: tuple[Any, ...], value: Any) -> str:
    names = list(map(str, choices))
    if len(names) > 8:  # some arguments of the trainer know dozens
        names = difflib.get_close_matches(str(value), names, n=3) or names[:5]
        return f"one of {', '.join(names)} or {len(choices) - len(names)} others"
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _show(value: Any) -> str:
    return "empty" if value is None else reprlib.repr(value)
