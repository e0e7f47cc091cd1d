"""Writing so that nothing that existed before is lost: beside the target, then rename."""

from __future__ import annotations

import errno
import glob
import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from st_l0.errors import InputError
from st_l0.utils.locks import hold
from st_l0.utils.paths import is_address, local_path

MARK = ".st_l0.json"  # in a folder, says which kind of output it is
_OF_THE_MACHINE = {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE}


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


def make_readable(folder: Path) -> None:
    """Give safetensors files the mode of any new file: they are written for their owner alone.

    Others, such as a server in a container, could not read them.
    """
    probe = _beside(folder / "mode", "new")
    try:
        probe.touch()
        mode = stat.S_IMODE(probe.stat().st_mode)
    finally:
        probe.unlink(missing_ok=True)
    for file in folder.rglob("*.safetensors"):
        file.chmod(mode)


class FileKind(NamedTuple):
    """A kind of file that is written.

    Attributes:
        name: What it is called, with its article.
        is_one: Whether a file is of this kind; `OSError`, `ValueError` and the like mean no.
    """

    name: str
    is_one: Callable[[Path], bool]


def check_file(path: str | Path, kind: FileKind, *, inputs: Iterable[str | Path] = ()) -> Path:
    """Refuse a file that an output must not replace; for the start, before any work is done.

    It may replace an empty file, or one of its own kind. A link is followed: what it points to is replaced.

    Args:
        path: Where the output goes.
        kind: What it is.
        inputs: What the output is made of, of which no file may be replaced.

    Returns:
        The path, with links resolved.

    Raises:
        InputError: There is something else, or nothing can be written there.
    """
    target = _file_place(path)
    if target.exists():
        for one in inputs:
            if not is_address(one) and (place := _resolved(one)).exists() and target.samefile(place):
                raise InputError(f"{path}: is what the output is made of; give another path")
        try:
            ours = not target.stat().st_size or kind.is_one(target)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
            ours = False
        if not ours:
            raise InputError(
                f"{path}: is not {kind.name}, and would be lost; give another path, or remove it"
            )
    check_writable(target.parent, target.name)
    return target


def _file_place(path: str | Path) -> Path:
    """Where a file goes: with links resolved, and no device, pipe or folder."""
    target = _resolved(path)
    try:
        mode = target.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give another path") from None
    if not stat.S_ISREG(mode):
        what = "a folder" if stat.S_ISDIR(mode) else "a device or pipe"
        raise InputError(f"{path}: is {what}; give the path of a file")
    return target


def _resolved(path: str | Path) -> Path:
    target = Path(os.path.realpath(local_path(path)))  # Path.resolve refuses a circle of links in its own way
    if not target.name:
        raise InputError(f"{path}: is the root of a disk, and stays; give a path in it")
    return target


def check_writable(folder: Path, name: str = "output") -> None:
    """Make sure, by doing it, that a file of this name can be written to a folder, which may be to come.

    Raises:
        InputError: It cannot.
        OSError: The disk is full or fails.
    """
    probe = _beside(folder / name, "new").name
    missing = []
    while not os.path.lexists(folder):
        missing.append(folder.name)
        folder = folder.parent
    try:
        for part in missing:
            with suppress(FileNotFoundError):  # not so where the name is too long
                (folder / part).lstat()
        os.close(os.open(folder / probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        (folder / probe).unlink()
    except OSError as error:
        if error.errno in _OF_THE_MACHINE:
            raise OSError(error.errno, error.strerror, str(folder)) from None
        problem = f"{folder}: nothing can be written there ({error.strerror})"
        raise InputError(f"{problem}; give another place") from None


@contextmanager
def replace_file(path: str | Path, kind: FileKind | None = None) -> Iterator[Path]:
    """Give a temporary path beside ``path``; on success it takes the place of ``path`` atomically.

    On any failure the temporary file is removed and ``path`` stays as it was. Where ``path`` is a link, all
    of this happens where it points to.

    Args:
        path: The file.
        kind: What it must be if it exists, see `check_file`; ``None`` where the file is known to be ours.

    Raises:
        InputError: There is something else.
    """
    path = _file_place(path) if kind is None else check_file(path, kind)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "new")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(path: str | Path, kind: str, *, inputs: Iterable[str | Path] = ()) -> Path:
    """Refuse a folder that an output must not replace; for the start, before any work is done.

    What a kill left of an earlier replacement is put right: the former folder gets its name back.

    Args:
        path: Where the output goes.
        kind: What it is, such as ``"trained model"``. It may replace an empty folder, or an earlier output of
            its kind, as `replace_folder` marked it.
        inputs: What the output is made of: files and folders that it must not replace. What is no path does
            not count, such as a name of the Hub or an address.

    Returns:
        The path, with links resolved.

    Raises:
        InputError: There is a file, or a folder that holds anything else or one of the inputs, or nothing can
            be written there.
    """
    target = _resolved(path)
    for former in sorted(target.parent.glob(f".{glob.escape(target.name)}.old-????????")):
        if target.exists():
            shutil.rmtree(former, ignore_errors=True)
        else:
            with suppress(FileNotFoundError):  # another process was faster
                former.rename(target)
    if os.path.lexists(target):
        if not target.is_dir():
            raise InputError(f"{target}: is no folder; give a new or empty one")
        if any(target.iterdir()) and kind_of(target) != kind:
            raise InputError(
                f"{target}: holds files that are no {kind} of st-l0; give a new or empty folder, or remove it"
            )
        if os.path.ismount(target):
            raise InputError(f"{target}: is where a disk is mounted, and stays; give a folder in it")
        places = [_resolved(one) for one in inputs if not is_address(one)]
        if any(place.exists() and place.is_relative_to(target) for place in places):
            raise InputError(f"{path}: is or holds what the output is made of; give another folder")
    check_writable(target.parent, target.name)
    return target


@contextmanager
def hold_folder(path: str | Path, kind: str, *, inputs: Iterable[str | Path] = ()) -> Iterator[Path]:
    """Check a folder as `check_folder` does, and keep other processes from making it while the body runs.

    Raises:
        InputError: See `check_folder`; or another process is making it.
    """
    target = _resolved(path)
    lock = target.with_name(f".{target.name}.st_l0.lock")
    check_writable(target.parent, target.name)
    target.parent.mkdir(parents=True, exist_ok=True)
    with hold(lock, "is making it", place=target):  # first: the check would put right what is under way
        yield check_folder(target, kind, inputs=inputs)


def kind_of(folder: Path) -> str | None:
    """Which kind of output a folder is marked as, if any."""
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
