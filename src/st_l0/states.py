"""States of a training run on disk: sealed when whole, and the newest whole one found again."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from st_l0.errors import InputError
from st_l0.files import replace_file, sync

logger = logging.getLogger(__name__)

_SEAL = "complete.json"


def unseal(state: Path) -> None:
    """Mark a state that is about to be written (again) as not whole."""
    (state / _SEAL).unlink(missing_ok=True)


def seal(state: Path) -> None:
    """Mark a state as whole: everything is on the disk, and the sizes of all files are noted."""
    files = sorted(path for path in state.rglob("*") if path.is_file())
    for path in files:
        sync(path)
    sizes = {path.relative_to(state).as_posix(): path.stat().st_size for path in files}
    with replace_file(state / _SEAL) as file:
        file.write_text(json.dumps({"files": sizes}, indent=1), encoding="utf-8")


def rotate(states: Path, limit: int | None) -> None:
    """Delete all but the ``limit`` newest whole states; ``None`` keeps all."""
    if limit is None:
        return
    found = _newest_first(states)
    kept = [path for path in found if _damage(path) is None][:limit]
    for path in found:
        if path not in kept:
            unseal(path)
            shutil.rmtree(path)


def newest_state(states: Path) -> Path | None:
    """The newest state that is whole; newer ones that are not are named in a warning.

    Raises:
        InputError: there are states, but none is whole.
    """
    found = _newest_first(states)
    damaged: list[str] = []
    for path in found:
        problem = _damage(path)
        if problem is None:
            for complaint in damaged:
                logger.warning("%s: going on from %s", complaint, path.name)
            return path
        damaged.append(f"{path} {problem}")
    if damaged:
        raise InputError(f"{damaged[0]}, and no older state is whole: remove {states} to start anew")
    return None


def _newest_first(states: Path) -> list[Path]:
    steps = {path: path.name.removeprefix("checkpoint-") for path in states.glob("checkpoint-*")}
    return sorted(
        (path for path, step in steps.items() if step.isdigit()), key=lambda path: -int(steps[path])
    )


def _damage(state: Path) -> str | None:
    """What is wrong with a state, if anything."""
    try:
        sizes = json.loads((state / _SEAL).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return "was not written to its end"
    except (ValueError, KeyError, TypeError):
        return f"is damaged ({_SEAL} cannot be read)"
    for name, size in sizes.items():
        file = state / name
        if not file.is_file():
            return f"is damaged ({name} is missing)"
        if file.stat().st_size != size:
            return f"is damaged ({name} has {file.stat().st_size} of {size} bytes)"
    return None
