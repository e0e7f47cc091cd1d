"""Errors that a user can mend: one line that says what, where and how."""

from __future__ import annotations

import errno
import importlib
from types import ModuleType


class InputError(ValueError):
    """Bad input: a file, a value or a folder that cannot be used as it is.

    The message is one line: what is wrong, where, and how to mend it. The command line prints it
    without a traceback and exits with code 2.
    """


def reason(error: BaseException, length: int = 300) -> str:
    """What a library said, which may be many lines, as a part of one line; its kind if it said nothing."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= length else f"{text[:length]}…"


_FAILED = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE}


def is_machines(error: OSError) -> bool:
    """Whether the machine failed (a broken or full disk, no memory), which no other input would mend."""
    return error.errno in _FAILED


class ServerError(OSError):
    """A server did not do what it was asked, or not all of it, and no other input would mend that.

    The message is one line. The command line exits with code 1.
    """


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message holds the exact pip command."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: Name of the module, such as ``"bm25s"``.
        extra: The extra of this package that installs it, such as ``"eval"``.

    Raises:
        MissingExtraError: ``module`` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"this needs {module.split('.')[0]!r}, which is not installed: pip install 'st-l0[{extra}]'"
        ) from error
