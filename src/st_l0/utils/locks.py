"""One process at a time: a lock file that its holder's death releases."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from st_l0.errors import InputError

logger = logging.getLogger(__name__)

_PAUSE = 0.05
_OPEN = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)  # a link in the lock's place would have its target emptied
_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
# On a file system without locks the file itself is the lock, which outlives a holder that was killed.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP}

if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)  # beyond the text, which others read
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


_held: set[int] = set()


def _forget() -> None:
    """In a forked child, a loader of data say: with its copy the lock would outlive the holder."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


@contextmanager
def hold(
    file: Path,
    what: str,
    *,
    place: Path | None = None,
    seconds: float = 0.0,
    cure: str = "wait for it, or give another output",
) -> Iterator[None]:
    """Hold a lock while the body runs; the system releases it when the process ends, however it ends.

    The file says who holds it, and is removed at the end.

    Args:
        file: The lock's file, in a folder that exists.
        what: What its holder does, as the message says it.
        place: What the message begins with; the folder, if None.
        seconds: How long to wait for another holder, who is named in a warning if that may be minutes.
        cure: What the message advises.

    Raises:
        InputError: Another process (or another thread) holds it.
    """
    descriptor = _acquire(file, what, place or file.parent, seconds, cure)
    _held.add(descriptor)
    try:
        with suppress(OSError):  # a full disk, say: it only says who we are
            os.ftruncate(descriptor, 0)
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            _release(file, descriptor)


def _release(file: Path, descriptor: int) -> None:
    if os.name == "nt":  # which removes no open file, so neither one that another has opened by now
        os.close(descriptor)
    with suppress(OSError):
        file.unlink()
    if os.name != "nt":
        os.close(descriptor)


def _acquire(file: Path, what: str, place: Path, seconds: float, cure: str) -> int:
    end, told = time.monotonic() + seconds, seconds < 100
    while True:
        descriptor, soft = _try(file)
        if descriptor is not None:
            return descriptor
        if time.monotonic() >= end:
            left = f" (or remove {file}, if that one has ended)" if soft else ""
            raise InputError(f"{place}: {_holder(file)} {what}; {cure}{left}")
        if not told:
            logger.warning("%s: waiting, %s %s", place, _holder(file), what)
            told = True
        time.sleep(_PAUSE)


def _try(file: Path) -> tuple[int | None, bool]:
    """The descriptor of the locked file, None if another holds it; and whether its existence is the lock."""
    while True:
        try:
            descriptor, new = os.open(file, _OPEN | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, new = os.open(file, _OPEN), False
            except FileNotFoundError:  # removed in between
                continue
        try:
            _lock(descriptor)
            # A holder removes its file before it lets go: what was opened before that is a lock on nothing.
            if os.path.samestat(os.fstat(descriptor), file.stat()):
                return descriptor, False
        except FileNotFoundError:
            pass
        except OSError as error:
            soft = error.errno in _NO_LOCKS
            if soft and new:
                return descriptor, True
            os.close(descriptor)
            if soft or error.errno in _TAKEN:
                return None, soft
            raise
        os.close(descriptor)


def _holder(file: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return file.read_text(encoding="utf-8") or "another process"
    return "another process"
