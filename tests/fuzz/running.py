"""The command line in this process, and what every run of it has to keep, whatever it was given."""

import hashlib
import io
import logging
import os
import signal
import sys
import unicodedata
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_SECONDS = 60  # for one run; none takes one
_JOINERS = "\u200c\u200d"


class Ran(NamedTuple):
    code: int
    stdout: str
    stderr: str


class Stuck(BaseException):
    """No exception that a command could take for its own."""


def run(*args):
    """`st-l0 args`, by the function that the command calls, with streams that are no terminal."""
    from st_l0.cli import main

    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors=errors) for errors in
               ("strict", "backslashreplace")]  # fmt: skip
    kept = sys.stdin, sys.stdout, sys.stderr, sys.argv
    with _settings_restored(), _deadline(args):
        sys.stdin, (sys.stdout, sys.stderr), sys.argv = io.StringIO(), streams, ["st-l0", *map(str, args)]
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code or 0
        finally:
            sys.stdin, sys.stdout, sys.stderr, sys.argv = kept
    texts = []
    for stream in streams:
        stream.flush()
        texts.append(stream.buffer.getvalue().decode("utf-8"))
    return Ran(code, *texts)


@contextmanager
def _settings_restored():
    """What the command sets for the whole process ends with it."""
    factory, form, level = logging.getLogRecordFactory(), warnings.formatwarning, logging.lastResort.level
    folder = Path.cwd()
    try:
        yield
    finally:
        os.chdir(folder)
        logging.setLogRecordFactory(factory)
        warnings.formatwarning = form
        logging.lastResort.level = level


@contextmanager
def _deadline(args):
    def stop(*_):
        raise Stuck(f"still running after {_SECONDS} s: {args}")

    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(more=4 << 30):
    """What takes too much memory fails in Python, instead of being killed with all tests."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def complaints(ran, *, columns=False):
    """What a run did that none may do; empty for one that is right. ``columns``: tabs are between them."""
    found = []
    if ran.code not in (0, 2, 130):  # 1 is for what the machine did, and the machine was well
        found.append(f"exit code {ran.code}")
    output = ran.stdout + ran.stderr
    if "Traceback (most recent call last)" in output:
        found.append("a traceback")
    output = output.replace("\n", "").replace("\t", "" if columns else "\t")
    stray = sorted(set(filter(_commands, output)))
    if stray:
        found.append(f"control characters {stray!r}")
    errors = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    if ran.code and (not errors or ran.stderr.splitlines()[-1] not in errors):
        found.append("no line that says what is wrong")
    if ran.code == 2 and ran.stderr.splitlines() != errors:
        found.append("more than the error on stderr")
    if not ran.code and errors:
        found.append("an error, but exit code 0")
    return found


def _commands(character):
    return unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp") and character not in _JOINERS


def snapshot(folder, *, but=()):
    """Everything under a folder: kind, and content of files; ``but`` names entries of the folder itself."""
    found = {}
    for path in sorted(Path(folder).rglob("*")):
        if path.relative_to(folder).parts[0] in but:
            continue
        if path.is_symlink():
            found[path] = f"link to {path.readlink()}"
        elif path.is_file():
            found[path] = hashlib.blake2b(path.read_bytes()).hexdigest()
        else:
            found[path] = "folder" if path.is_dir() else "other"
    return found
