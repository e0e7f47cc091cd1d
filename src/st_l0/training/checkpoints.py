"""Checkpoints of a training run on disk: sealed when whole, and the newest whole one found again."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from st_l0.errors import InputError
from st_l0.utils.files import replace_file, sync

logger = logging.getLogger(__name__)

_MARK = "complete.json"


def mark_incomplete(checkpoint: Path) -> None:
    """Mark a checkpoint that is about to be written (again) as not whole."""
    (checkpoint / _MARK).unlink(missing_ok=True)


def mark_complete(checkpoint: Path) -> None:
    """Mark a checkpoint as whole: everything is on the disk, and the sizes of all files are noted."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    sizes = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in files}
    with replace_file(checkpoint / _MARK) as file:
        file.write_text(json.dumps({"files": sizes}, indent=1), encoding="utf-8")


def rotate(checkpoints: Path, limit: int | None) -> None:
    """Delete all but the ``limit`` newest whole checkpoints; ``None`` keeps all."""
    if limit is None:
        return
    found = _newest_first(checkpoints)
    kept = [path for path in found if _damage(path) is None][:limit]
    for path in found:
        if path not in kept:
            mark_incomplete(path)
            shutil.rmtree(path)


def last_complete_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is whole; newer ones that are not are named in a warning.

    Raises:
        InputError: there are checkpoints, but none is whole.
    """
    found = _newest_first(checkpoints)
    damaged: list[str] = []
    for path in found:
        problem = _damage(path)
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


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, if anything."""
    try:
        sizes = json.loads((checkpoint / _MARK).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "was not written to its end"
    except (ValueError, KeyError, TypeError):
        return f"is damaged ({_MARK} cannot be read)"
    for name, size in sizes.items():
        file = checkpoint / name
        if not file.is_file():
            return f"is damaged ({name} is missing)"
        if file.stat().st_size != size:
            return f"is damaged ({name} has {file.stat().st_size} of {size} bytes)"
    return None
