"""Small files of others and of ours, read so that whatever is wrong with one is said in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from st_l0.errors import InputError, is_machines, reason
from st_l0.utils.paths import is_remote


def refuse_device(path: str | Path) -> None:
    """Refuse a device as input, such as ``/dev/zero``, which may have no end; a pipe is as good as a file.

    Raises:
        InputError: It is one.
    """
    if not is_remote(path) and (Path(path).is_char_device() or Path(path).is_block_device()):
        raise InputError(f"{path}: is a device; give a file")


def read_text(path: str | Path, mend: str) -> str:
    """Read a file of UTF-8 text; arguments as in `read_json`.

    Raises:
        InputError: There is no such file, it cannot be read, or is no text.
    """
    refuse_device(path)
    try:
        return (Path(path) if isinstance(path, str) else path).read_text(encoding="utf-8")
    except OSError as error:
        if is_machines(error):
            raise
        raise InputError(f"{path}: cannot be read ({error.strerror}); {mend}") from error
    except ValueError as error:
        raise InputError(f"{path}: not UTF-8 ({reason(error)}); {mend}") from error


def read_json(path: str | Path, mend: str, kind: type = dict) -> Any:
    """Read a file that holds one JSON value.

    Args:
        path: The file, in UTF-8.
        mend: What to do about it if it is damaged, such as ``"give a new folder"``.
        kind: Type of the value.

    Raises:
        InputError: There is no such file, it cannot be read, is no JSON or holds something else.
    """
    text = read_text(path, mend)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({reason(error)}); {mend}") from error
    if not isinstance(found, kind):
        raise InputError(f"{path}: holds a JSON {type(found).__name__}, not a {kind.__name__}; {mend}")
    return found
