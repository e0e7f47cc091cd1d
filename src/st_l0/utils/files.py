"""Writing so that nothing that existed before is lost: beside the target, then rename."""

from __future__ import annotations

import glob
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from st_l0.errors import InputError

MARK = ".st_l0.json"  # in a folder, says which kind of output it is


def _beside(path: Path, role: str) -> Path:
    return path.with_name(f".{path.name}.{role}-{uuid.uuid4().hex[:8]}")


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if os.name == "nt":  # neither a folder nor a file open for reading can be flushed there
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some file systems refuse to sync a folder
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


@contextmanager
def replace_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path`` atomically.

    On any failure the temporary file is removed and ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "new")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: str | Path, kind: str) -> Path:
    """Refuse a folder that an output must not replace; for the start, before any work is done.

    What a kill left of an earlier replacement is put right: the former folder gets its name back.

    Args:
        path: Where the output goes.
        kind: What it is, such as ``"trained model"``. It may replace an empty folder, or an earlier output of
            its kind, as `replace_folder` marked it.

    Returns:
        The path, with links resolved.

    Raises:
        InputError: There is a file, or a folder that holds anything else.
    """
    path = Path(path).resolve()
    for former in sorted(path.parent.glob(f".{glob.escape(path.name)}.old-????????")):
        if path.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):  # another process was faster
                former.rename(path)
    if not path.exists():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: is no folder; give a new or empty one")
    if any(path.iterdir()) and _kind_of(path) != kind:
        raise InputError(
            f"{path}: holds files that are no {kind} of st-l0; give a new or empty folder, or remove it"
        )
    return path


def _kind_of(folder: Path) -> str | None:
    try:
        return str(json.loads((folder / MARK).read_text(encoding="utf-8"))["kind"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


@contextmanager
def replace_folder(path: str | Path, kind: str) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on success it takes the place of ``path``.

    It gets a small file that marks it as an output of its kind, which a later one may replace. The former
    folder is moved aside first and removed last, so at each moment one of the two is whole. On any failure
    ``path`` stays as it was.

    Args:
        path: The folder; see `check_folder` for what it may hold.
        kind: What the output is.

    Raises:
        InputError: ``path`` holds something else.
    """
    path = check_folder(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = _beside(path, "new"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
        (temporary / MARK).write_text(json.dumps({"kind": kind}) + "\n", encoding="utf-8")
        for entry in temporary.rglob("*"):
            sync(entry)
        if path.exists():
            path.rename(former)
        temporary.rename(path)
        sync(path.parent)
    finally:
        if former.exists() and not path.exists():  # stopped between the two, be it by Ctrl-C
            former.rename(path)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(former, ignore_errors=True)
