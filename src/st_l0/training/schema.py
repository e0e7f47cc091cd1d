"""The JSON schema of sections, so that an editor completes and checks a recipe while it is written."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

from st_l0.training.settings import Section

_Schema = dict[str, Any]

_PLAIN = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
    type(None): "null",
}
_BOUNDS = {
    "at_least": "minimum",
    "at_most": "maximum",
    "more_than": "exclusiveMinimum",
    "less_than": "exclusiveMaximum",
}


def json_schema(section: type[Section]) -> _Schema:
    """Describe a section and those below it in JSON Schema, draft 2020-12.

    It has all keys, types, choices, bounds, defaults and descriptions. It takes all that the sections take,
    numbers in quotes apart; what depends on several keys, such as a ramp that must not be longer than the
    training, and empty text are left to them.

    Args:
        section: The outermost section, such as `st_l0.training.Recipe`.
    """
    definitions: dict[str, _Schema] = {}
    described = _section(section, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **described, "$defs": definitions}


def _section(section: type[Section], definitions: dict[str, _Schema]) -> _Schema:
    hints = typing.get_type_hints(section)
    texts = _descriptions(section)
    properties, required = {}, []
    for spec in dataclasses.fields(section):
        known = _field(hints[spec.name], spec.metadata, definitions)
        if texts.get(spec.name):
            known["description"] = texts[spec.name]
        if spec.default_factory is not dataclasses.MISSING:
            known["default"] = spec.default_factory()
        elif spec.default is not dataclasses.MISSING:
            known["default"] = spec.default
        else:
            required.append(spec.name)
        properties[spec.name] = known
    return {
        "title": section.__name__,
        "description": inspect.cleandoc(section.__doc__ or "").split("\n\n")[0],
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }


def _field(hint: Any, metadata: Mapping[str, Any], definitions: dict[str, _Schema]) -> _Schema:
    if "entries" not in metadata:
        return _type(hint, metadata, definitions)  # the docstring of `Section` says what the metadata are
    texts = metadata["help"]() if "help" in metadata else {}
    bounds = metadata.get("bounds", {})
    entries = {}
    for name, entry in metadata["entries"]().items():
        entries[name] = _type(entry, bounds.get(name, {}), definitions)
        if name in texts:
            entries[name]["description"] = texts[name]
    known = {"type": "object", "properties": entries, "additionalProperties": False}
    return {"anyOf": [{"enum": list(entries)}, known]} if "alone" in metadata else known


def _type(hint: Any, metadata: Mapping[str, Any], definitions: dict[str, _Schema]) -> _Schema:
    """What `st_l0.training.settings.convert` takes; ``{}``, anything, for types that are not plain."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        members = arguments
        if any(isinstance(member, type) and issubclass(member, enum.Enum) for member in members):
            members = tuple(member for member in members if member is not str)
        found = [_type(member, metadata, definitions) for member in members]
        if len(found) == 1:
            return found[0]
        return {"anyOf": found} if all(found) else {}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        item = _type(arguments[0], {}, definitions)
        many = {"type": "array", "items": item, "minItems": 1}
        alone = str in (arguments[0], *get_args(arguments[0]))  # which stands for a list of one
        return {"anyOf": [{"type": "string"}, many]} if alone else many
    if isinstance(hint, type) and issubclass(hint, Section):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = _section(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return {"enum": [choice.value for choice in hint]}
    plain = origin or hint
    if plain not in _PLAIN:
        return {}
    known: _Schema = {"type": _PLAIN[plain]}
    if plain in (int, float):
        known |= {_BOUNDS[name]: bound for name, bound in metadata.items() if name in _BOUNDS}
    return known


def _descriptions(section: type[Section]) -> dict[str, str]:
    """The items of the docstring's ``Attributes``, each as one line."""
    _, _, attributes = inspect.cleandoc(section.__doc__ or "").partition("Attributes:\n")
    attributes = attributes.partition("\n\n")[0]
    items = re.findall(r"^    (\w+): (.*(?:\n     +.*)*)", attributes, flags=re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in items}
