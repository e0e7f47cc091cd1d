"""Checkpoints of a training run on disk: sealed when whole, and the newest whole one found again."""

from __future__ import annotations

import json
import logging
import shutil
import zlib
from pathlib import Path

from st_l0.errors import InputError
from st_l0.utils.files import replace_file, sync

logger = logging.getLogger(__name__)

_MARK = "complete.json"
_UNDER_WAY = "checkpoint-is-incomplete.txt"  # of the trainer's own, removed when it has written all
_BLOCK = 1 << 20


def mark_incomplete(checkpoint: Path) -> None:
    """Mark a checkpoint that is about to be written (again) as not whole."""
    (checkpoint / _MARK).unlink(missing_ok=True)


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as whole: all is on the disk, and sizes and checksums of all files are noted."""
    files = sorted(
        path for path in checkpoint.rglob("*") if path.is_file() and path.name not in (_MARK, _UNDER_WAY)
    )
    for path in files:
        sync(path)
    names = [path.relative_to(checkpoint).as_posix() for path in files]
    noted = {
        "files": {name: path.stat().st_size for name, path in zip(names, files, strict=True)},
        "crc32": {name: _checksum(path) for name, path in zip(names, files, strict=True)},
    }
    with replace_file(checkpoint / _MARK) as file:
        file.write_text(json.dumps(noted, indent=1), encoding="utf-8")


def rotate(checkpoints: Path, limit: int | None, best: str | None = None) -> None:
    """Delete all but the ``limit`` newest whole checkpoints; ``None`` keeps all.

    Args:
        checkpoints: Their folder.
        limit: How many are kept.
        best: The one that is kept in any case; beside it the newest one is.
    """
    if limit is None:
        return
    found = _newest_first(checkpoints)
    whole = [path for path in found if _damage(path) is None]
    kept = whole[:limit]
    if best is not None and Path(best) in whole and Path(best) not in kept:
        kept = [*whole[: max(1, limit - 1)], Path(best)]
    for path in found:
        if path not in kept:
            mark_incomplete(path)
            shutil.rmtree(path)


def last_complete_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole, to its last byte; newer ones that are not are named in a warning.

    Raises:
        InputError: there are checkpoints, but none is whole.
    """
    found = _newest_first(checkpoints)
    damaged: list[str] = []
    for path in found:
        problem = _damage(path, contents=True)
        if problem is None:
            for complaint in damaged:
                logger.warning("%s: going on from %s", complaint, path.name)
            return path
        damaged.append(f"{path} {problem}")
    if damaged:
        raise InputError(
            f"{damaged[0]}, and no older checkpoint is whole: remove {checkpoints} to start anew"
        )
    return None


def _newest_first(checkpoints: Path) -> list[Path]:
    steps = {path: path.name.removeprefix("checkpoint-") for path in checkpoints.glob("checkpoint-*")}
    return sorted(
        (path for path, step in steps.items() if step.isdigit()), key=lambda path: -int(steps[path])
    )


def _damage(checkpoint: Path, *, contents: bool = False) -> str | None:
    """What is wrong with a checkpoint, if anything; with its ``contents`` if they are to be read."""
    try:
        noted = json.loads((checkpoint / _MARK).read_text(encoding="utf-8"))
        sizes = noted["files"]
        checksums = noted.get("crc32", {})
        if noted.keys() != {"files"} and (noted.keys(), sizes.keys()) != (
            {"files", "crc32"},
            checksums.keys(),
        ):
            raise ValueError  # neither of an earlier version nor whole
    except FileNotFoundError:
        return "was not written to its end"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"is damaged ({_MARK} cannot be read)"
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            return f"is damaged ({name} is missing)"
        if file.stat().st_size != size:
            return f"is damaged ({name} has {file.stat().st_size} of {size} bytes)"
    if contents and not checksums:
        logger.warning("%s is of an earlier version, without checksums: only sizes were checked", checkpoint)
    for name, checksum in checksums.items() if contents else ():
        if _checksum(checkpoint / name) != checksum:
            return f"is damaged (the checksum of {name} differs)"
    return None


def _checksum(path: Path) -> int:
    """CRC-32 of a file: finds damage, at the speed of the memory; not forgery."""
    found = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return found
