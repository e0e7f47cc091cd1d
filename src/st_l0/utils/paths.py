"""Paths as people give them, in recipes, on the command line and in Python: one function for all of them."""

from __future__ import annotations

import os
import re
from pathlib import Path

from st_l0.errors import InputError

# Path makes "gs:/bucket" of "gs://bucket". One letter alone is a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|([A-Za-z_]\w*))" + (r"|%(\w+)%" if os.name == "nt" else ""))


def local_name(name: str | Path) -> str:
    """A path, or a name of the Hub, with ``~`` and variables in the place of what they stand for.

    ``~`` and ``~user`` at the beginning become a home folder, ``$NAME`` and ``${NAME}`` (on Windows
    ``%NAME%`` too) the value of that environment variable: no shell does it in a recipe or in Python. All
    else stays as it is, so that a name of the Hub remains one.

    Args:
        name: What was given.

    Raises:
        InputError: It is no string or path, empty, a URL, has a variable that is not set, or ``~`` and the
            name of no user; what exists under such a name is taken as it is.
    """
    given = os.fspath(name) if isinstance(name, str | os.PathLike) else None
    if not isinstance(given, str):
        raise InputError(f"{name!r:.40} is no path; give a str or a Path")
    if not given or "\0" in given:
        raise InputError(f"{given!r}: is no path; give one")
    if scheme := _SCHEME.match(given):
        url = f"{scheme[0]}/{given[scheme.end() :].lstrip('/')}"
        raise InputError(f"{url}: is no path on this machine; give one, and copy to or from there apart")

    def value(found: re.Match[str]) -> str:
        variable = found[found.lastindex or 0]
        if os.environ.get(variable):
            return os.environ[variable]
        if os.path.lexists(given):
            return found[0]
        raise InputError(f"{given}: the variable {variable} is not set; set it, or give the whole path")

    text = os.path.expanduser(_VARIABLE.sub(value, given))  # noqa: PTH111  (Path would change the text)
    if text.startswith("~") and not os.path.lexists(text):
        raise InputError(f"{given}: there is no such user; give the whole path")
    return text


def local_path(path: str | Path) -> Path:
    """The same of what can only be a path."""
    return Path(local_name(path))
