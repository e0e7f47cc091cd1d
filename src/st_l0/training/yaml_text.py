"""YAML text as plain values, or one line that says why not; and what must not get into any file again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from st_l0.errors import InputError
from st_l0.utils.paths import local_path
from st_l0.utils.reading import refuse_device

Key = tuple[str, ...]

# Far more than a recipe or a sweep needs, and read in seconds.
_MOST_BYTES = 1 << 18
_MOST_NODES = 100_000

_SECRET = re.compile(r"(?:.*[_-])?(?:token|secret|password|api_?key)", re.IGNORECASE)


class Secret(str):
    """Text that is used but never written: its ``repr`` hides it, and copies and pickles of it are empty."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return (str, ())


def is_secret(name: object) -> bool:
    """Whether the value of a key of this name is to be kept secret, such as ``hub_token``."""
    return isinstance(name, str) and _SECRET.fullmatch(name) is not None


def without_secrets(value: Any) -> Any:
    """The same plain value without the keys, at any depth, that hold a secret."""
    if isinstance(value, dict):
        return {name: without_secrets(one) for name, one in value.items() if not is_secret(name)}
    return [without_secrets(one) for one in value] if isinstance(value, list) else value


def read_text(path: str | Path) -> str:
    """The text of a YAML file.

    Raises:
        InputError: It cannot be read, is not UTF-8, or is far too large to be one.
    """
    refuse_device(path)
    try:
        with local_path(path).open("rb") as file:  # a pipe has no size to look at before
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes: give the path of a YAML file")
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}): save it as UTF-8") from None
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}): give the path of a YAML file") from None


def parse_yaml(text: str, source: str) -> tuple[Any, dict[Key, int]]:
    """Parse one YAML document of plain values.

    Args:
        text: The document.
        source: Its name in error messages.

    Returns:
        The value, and the line (from 1) of each key by its path, such as ``{("model", "idf"): 3}``.

    Raises:
        InputError: ``text`` is not YAML, holds more than plain values, repeats a key, or has aliases that
            hold themselves or make it very large.
    """
    lines: dict[Key, int] = {}
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None, lines
        _walk(node, (), source, lines, {})
        return loader.construct_document(node), lines
    except InputError:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{source}:{mark.line + 1}" if mark else source
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be parsed"
        raise InputError(f"{where}: not valid YAML ({problem})") from None
    except RecursionError:
        raise InputError(f"{source}: not valid YAML (nested too deeply)") from None
    except Exception as error:  # PyYAML lets ValueError, KeyError ... of impossible scalars through
        raise InputError(f"{source}: not valid YAML (a value does not fit its type: {error})") from None


def _walk(
    node: yaml.Node, path: Key, source: str, lines: dict[Key, int], sizes: dict[int, int | None]
) -> int:
    """Note the lines of keys; gives the nodes that there are once each alias is written out."""
    if id(node) in sizes:  # an alias leads to a node that was walked before
        known = sizes[id(node)]
        if known is None:
            raise InputError(f"{source}:{node.start_mark.line + 1}: an alias holds itself: write values out")
        return known
    sizes[id(node)] = None
    size = 1
    if isinstance(node, yaml.SequenceNode):
        size += sum(_walk(value, path, source, {}, sizes) for value in node.value)
    elif isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in first:
                full = ".".join((*path, name))
                raise InputError(f"{source}:{line}: {full} is given twice, first in line {first[name]}")
            first[name] = lines[(*path, name)] = line
            size += 1 + _walk(value, (*path, name), source, lines, sizes)
    if size > _MOST_NODES:
        raise InputError(f"{source}: holds more than {_MOST_NODES:,} values (aliases are written out)")
    sizes[id(node)] = size
    return size
