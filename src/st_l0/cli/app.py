"""The frame of the command line: options of all commands, and errors as one line and an exit code."""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from st_l0.errors import InputError, MissingExtraError
from st_l0.utils.terminal import is_terminal, printable

# Newer typer brings its own click, older ones import it: the common base is reached through typer.
_UsageError: Any = typer.BadParameter.__base__

_MESSAGE_LENGTH = 600  # of what others raise; our own errors are as long as the names in them
_OUT_OF_MEMORY = ("MemoryError", "OutOfMemoryError", "_ArrayMemoryError")  # Python's, torch's, numpy's
_RUST_ERROR = re.compile(r"\(os error (\d+)\)")  # as safetensors and tokenizers report a full disk
_NO_SPACE = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
_EXIT_CODES = (
    "Exit codes: 0 done; 1 the machine failed (a full disk, no memory) or st-l0 did; "
    "2 an input, option or setting is unusable, the message says how to mend it; 130 interrupted."
)

TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the model; read it before you do."),
]


class _Commands(TyperGroup):
    """Understands ``--debug`` anywhere, and turns every exception into one line and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            sys.exit(super().main(*args, **{**extra, "standalone_mode": False}))
        except _UsageError as error:
            if type(error).__name__ != "NoArgsIsHelpError":  # which has printed the help
                command = error.ctx.command_path if error.ctx else "st-l0"
                _complain(f"error: {printable(error.format_message().rstrip('.'))} (see {command} --help)")
            sys.exit(error.exit_code)
        except typer.Abort:
            _complain("interrupted")
            sys.exit(130)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if "--debug" in args[:end]:
            args = ["--debug", *(arg for arg in args[:end] if arg != "--debug"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort, _UsageError, BrokenPipeError):
            raise  # typer's own
        except (Exception, KeyboardInterrupt) as error:
            message, code = _describe(error)
            if ctx.params["debug"]:
                for part in traceback.format_exception(error):
                    _complain("\n".join(map(printable, part.splitlines())))
            _complain(message)
            raise typer.Exit(code) from error


app = typer.Typer(
    name="st-l0",
    cls=_Commands,
    help="Inference-free sparse retrieval: train, evaluate, index and search.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    _open_missing_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # texts may hold what the terminal's encoding does not
    logging.setLogRecordFactory(_PrintableRecord)
    warnings.formatwarning = _format_warning
    try:
        app()
    except SystemExit as end:
        sys.exit(_flush_output() or end.code)


def say(text: object) -> None:
    """Print a line on standard output; what is no text for a terminal is spelled out."""
    with writing("standard output"):
        typer.echo(printable(text))


def _complain(text: str) -> None:
    typer.echo(text, err=True)


class _PrintableRecord(logging.LogRecord):
    """A line of a log, ours or a library's, that may hold names and texts of the data."""

    def getMessage(self) -> str:
        return printable(super().getMessage())


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{filename}:{lineno}: {category.__name__}: {printable(message)}\n"


def _open_missing_streams() -> None:
    """Give streams that were closed before the start (``>&-``) to nobody, for all that write or ask."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # Never closed: it stands for a descriptor that the next file would take otherwise.
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115


def _flush_output() -> int:
    """Write what is left, for 0; else say why not, for 1: Python itself would print a traceback."""
    try:
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        _complain(_describe(error, "standard output")[0])
        return 1


def _drop_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"st-l0 {version('st-l0')}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks and the logs of libraries.")
    ] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    if not debug:
        _silence_libraries()


def _describe(error: BaseException, place: str | None = None) -> tuple[str, int]:
    """One line about an error, and the exit code that goes with it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, InputError | MissingExtraError):
        return f"error: {printable(error)}", 2
    text = " ".join(str(error).split())  # messages of libraries run over several lines
    text = printable(text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}…")
    if isinstance(error, OSError) and error.errno in (errno.ENAMETOOLONG, errno.ELOOP):  # by its name alone
        return f"error: {printable(error.filename or place)}: {error.strerror}; give another path", 2
    if isinstance(error, OSError):
        place = error.filename2 or error.filename or place
        return (
            f"error: {printable(place)}: {error.strerror}" if place and error.strerror else f"error: {text}",
            1,
        )
    if type(error).__name__ in _OUT_OF_MEMORY or "can't allocate memory" in text:
        return f"error: out of memory ({text or 'no more was given'}); a smaller batch size needs less", 1
    return f"error: {type(error).__name__}: {text} (run with --debug for the traceback)", 1


@contextmanager
def writing(target: str | Path | None) -> Iterator[None]:
    """Give an error of the operating system that names no file, such as a full disk, the file at hand."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None and target is not None:
            error.filename = str(target)
        raise
    except Exception as error:
        found = _RUST_ERROR.search(str(error))
        if found is None or int(found[1]) not in _NO_SPACE:
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(target)) from error


def _silence_libraries() -> None:
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")  # read when the library is imported
    if not is_terminal(sys.stderr):
        for switch in ("HF_HUB_DISABLE_PROGRESS_BARS", "TQDM_DISABLE"):  # bars of libraries that do not ask
            os.environ.setdefault(switch, "1")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    logging.getLogger("opensearch").setLevel(logging.ERROR)  # each attempt, with a traceback
