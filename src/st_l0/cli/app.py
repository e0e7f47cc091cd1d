"""The frame of the command line: options of all commands, and errors as one line and an exit code."""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from st_l0.errors import InputError, MissingExtraError

# Newer typer brings its own click, older ones import it: the common base is reached through typer.
_UsageError: Any = typer.BadParameter.__base__

_MESSAGE_LENGTH = 600

TrustRemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the model; read it before you do."),
]


class _Commands(TyperGroup):
    """Understands ``--debug`` anywhere, and turns every exception into one line and an exit code."""

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
                traceback.print_exception(error)
            typer.echo(message, err=True)
            raise typer.Exit(code) from error


app = typer.Typer(
    name="st-l0",
    cls=_Commands,
    help="Inference-free sparse retrieval: train, evaluate, index and search.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # texts may hold what the terminal's encoding does not
    app()


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


def _describe(error: BaseException) -> tuple[str, int]:
    """One line about an error, and the exit code that goes with it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    text = " ".join(str(error).split())  # messages of libraries run over several lines
    if isinstance(error, InputError | MissingExtraError):
        return f"error: {text}", 2
    text = text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]}…"
    if isinstance(error, OSError):
        place = error.filename2 or error.filename
        return f"error: {place}: {error.strerror}" if place and error.strerror else f"error: {text}", 1
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


def _silence_libraries() -> None:
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")  # read when the library is imported
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
