"""Writing so that nothing that existed before is lost: beside the target, then rename."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


@contextmanager
def replace_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty temporary folder beside ``path``; on success it takes the place of ``path``.

    The former folder is moved aside first and removed last, so at each moment one of the two is whole.
    On any failure ``path`` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, former = _beside(path, "new"), _beside(path, "old")
    temporary.mkdir()
    try:
        yield temporary
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
