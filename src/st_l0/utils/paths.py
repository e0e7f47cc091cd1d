"""Paths as people give them, in recipes, on the command line and in Python: one function for all of them."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, cast

from st_l0.errors import InputError, reason

# Path makes "gs:/bucket" of "gs://bucket". One letter alone is a drive of Windows.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_PACKAGES = {"smbclient": "smbprotocol", "libarchive": "libarchive-c"}  # not called as their modules
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
    if url := _address(given):
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


def input_path(path: str | Path) -> Path:
    """The same of what is only read, which may also lie at an address that fsspec opens, such as ``s3://``.

    Args:
        path: A path, an address, or what this function gave.

    Returns:
        A path; or what has its methods for reading, and no ``__fspath__``: see `is_remote`.

    Raises:
        InputError: As `local_name`; nothing opens addresses of that scheme, a package for it is missing, or
            the place cannot be reached. That there is nothing is no error here.
    """
    if is_remote(path):
        return path  # type: ignore[return-value]
    address = _address(path)
    if address is None:
        return local_path(path)
    scheme = address.split(":")[0]
    if scheme in ("file", "local"):
        return local_path(os.fspath(path).removeprefix(f"{scheme}:").removeprefix("//"))
    return cast(Path, _reached(address, scheme))


def is_address(name: str | Path) -> bool:
    """Whether a name is the URL of something, which need not be of this machine."""
    return _address(name) is not None


def is_remote(path: str | Path) -> bool:
    """Whether something that `input_path` gave is not of this machine's files."""
    return hasattr(path, "fs")


def _address(name: str | Path) -> str | None:
    given = os.fspath(name) if isinstance(name, str | os.PathLike) else ""
    scheme = _SCHEME.match(given)
    if scheme is None:
        return None
    rest = given[scheme.end() :]
    return f"{scheme[0]}/{rest[1:] if rest.startswith('/') else rest}"


def _reached(address: str, scheme: str) -> Any:
    if "@" in address.split("/")[2]:
        raise InputError(f"{scheme}://…: give no names and passwords in an address, but in fsspec's settings")
    from fsspec import available_protocols
    from upath import UPath

    try:
        place = UPath(address)
        place.stat()  # `exists` takes every failure for a no
    except FileNotFoundError:
        pass
    except ImportError as error:
        module = getattr(error.__cause__ or error, "name", None) or scheme
        package = _PACKAGES.get(module, module)
        raise InputError(
            f"{address}: this needs {package!r}, which is not installed: pip install {package}"
        ) from error
    except Exception as error:  # each file system has errors of its own
        if scheme not in available_protocols():
            raise InputError(f"{address}: fsspec knows no {scheme}://; give a path") from error
        problem = f"cannot be reached ({reason(error)})"
        raise InputError(f"{address}: {problem}; check address, network and credentials") from error
    return place
