"""What is shown to people and given to scripts: no commands to the terminal, nothing cut, valid JSON."""

from __future__ import annotations

import json
import math
import sys
import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_UNBOUNDED = 100_000  # columns; a table takes as many as it needs
# Control and format characters (bidirectional overrides among them), halves of pairs, line separators.
_COMMANDS = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"  # format characters that Persian, Hindi and emoji are written with


def printable(text: object) -> str:
    r"""Text in one line that holds no command to a terminal.

    Control characters, line breaks, bidirectional overrides, invisible characters and halves of pairs are
    shown as Python spells them, such as ``\x1b``; the rest is left as it is.

    Example:
        >>> print(printable("red\x1b[31m\nfish"))
        red\x1b[31m\nfish
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(_spell(character) for character in text)


def _spell(character: str) -> str:
    if unicodedata.category(character) not in _COMMANDS or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode()


def cell(text: object, style: str = "") -> Text:
    """Text of data for ``rich``: `printable`, and neither markup nor emoji codes in it mean anything."""
    from rich.text import Text

    return Text(printable(text), style=style)


def is_terminal(stream: object) -> bool:
    """Whether a stream is a terminal; one that is absent, closed or no real file is none."""
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]
    except (AttributeError, ValueError, OSError):
        return False


def open_console() -> Console:
    """Standard output for ``rich``; unless it is a terminal, no line is broken or cut, however long."""
    from rich.console import Console

    width = None if is_terminal(sys.stdout) else _UNBOUNDED
    return Console(highlight=False, emoji=False, width=width)


def to_json(value: Any) -> str:
    """JSON in one line for scripts: ASCII, and null for a number that is not finite."""
    return json.dumps(_finite(value), allow_nan=False).replace("\x7f", "\\u007f")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
