"""The record of a folder of numbered parts: JSON that says how they are made, and at the end what they hold.

Once all parts are there, it gets their number of items and, as ``parts``, the SHA-256 of each part's file. By
those a reader knows that it reads what was written: no part of another run, none that was copied over another
or has changed. A folder of an earlier version lacks them and is read without; the same command, started
again, adds them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from st_l0.errors import InputError
from st_l0.utils.files import check_writable, replace_file
from st_l0.utils.reading import read_json

PARTS = "parts"
_BLOCK = 1 << 20


def check_begun(path: Path) -> None:
    """Refuse a folder that holds other files than such parts; for the start, before any work is done.

    Args:
        path: Where the record is or belongs.

    Raises:
        InputError: It does, or nothing can be written there.
    """
    folder = path.parent
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"{folder}: is no folder; give a new or empty one")
    foreign = folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
    if foreign and not path.exists():  # looked at last: another process may have begun in between
        raise InputError(f"{folder}: holds files but no {path.name}; give a new or empty folder")
    check_writable(folder, path.name)


def begin_record(path: Path, record: dict[str, Any], required: Collection[str]) -> dict[str, Any]:
    """Begin a folder with a record, or read the record of a run that was stopped.

    Args:
        path: Where the record is or belongs.
        record: What this run would write.
        required: Keys that make the file such a record; see `read_record`.

    Returns:
        ``record``, or the one that is there, which the caller compares.

    Raises:
        InputError: The folder holds other files, or a damaged record.
    """
    check_begun(path)
    if path.exists():
        return read_record(path, required)
    write_record(path, record)
    return record


def check_record(path: Path, found: dict[str, Any], record: dict[str, Any], keys: Iterable[str]) -> None:
    """Refuse a folder that was begun with other settings.

    Raises:
        InputError: ``found`` and ``record`` differ in one of the keys.
    """
    for key in keys:
        if found.get(key) != record[key]:
            raise InputError(
                f"{path}: begun with {key} {found.get(key)}, not {record[key]}; give a new folder"
            )


def read_record(path: Path, required: Collection[str]) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: It is no JSON, or lacks one of the keys ``required``.
    """
    record = read_json(path, "give a new folder")
    if missing := sorted(set(required) - set(record)):
        raise InputError(f"{path}: not a record, it lacks {', '.join(missing)}; give a new folder")
    return dict(record)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def shard_path(folder: Path, number: int, suffix: str) -> Path:
    """Where shard ``number``, from 0, is or belongs."""
    return folder / f"part-{number:06d}.{suffix}"


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found.update(block)
    return found.hexdigest()


def read_part(path: Path, number: int, record: Mapping[str, Any], cure: str) -> bytes:
    """What a part holds, read once, if it is the one that was noted; see `check_part`."""
    _check_present(path, cure)
    content = path.read_bytes()
    _check_digest(path, hashlib.sha256(content).hexdigest(), number, record, cure)
    return content


def check_part(path: Path, number: int, record: Mapping[str, Any], cure: str) -> None:
    """Refuse a part that is missing, or is not the one that the record has noted.

    Args:
        path: Where the part is.
        number: Its number, from 0.
        record: What `read_record` gave; one without digests admits any part.
        cure: What the message advises.

    Raises:
        InputError: It is so.
    """
    _check_present(path, cure)
    if record.get(PARTS) is not None:
        _check_digest(path, digest(path), number, record, cure)


def _check_present(path: Path, cure: str) -> None:
    if not path.is_file():
        raise InputError(f"{path}: no such part; {cure}")


def _check_digest(path: Path, found: str, number: int, record: Mapping[str, Any], cure: str) -> None:
    noted = record.get(PARTS)
    if noted is not None and noted[number : number + 1] != [found]:
        raise InputError(f"{path}: is not the part that was written there, or has changed; {cure}")
