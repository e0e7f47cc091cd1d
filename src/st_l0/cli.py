"""The command line ``st-l0``: each command is a thin shell over one public function.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from st_l0.errors import InputError, MissingExtraError

# Newer typer brings its own click, older ones import it: the common base is reached through typer.
_UsageError: Any = typer.BadParameter.__base__

_MESSAGE_LENGTH = 600


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

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Documents encoded at once.")]


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


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE.yaml", help="The recipe.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key.path=value", help="Values that replace those of the recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest saved state.")] = False,
) -> None:
    """Train a model by a recipe, such as `st-l0 train recipe.yaml training.max_steps=10`."""
    from st_l0.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    from st_l0.training import train as run

    with _writing(loaded.output):
        folder = run(loaded, resume=resume)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts one of us for each device
        typer.echo(f"model: {folder}")


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[
        list[Path], typer.Option("--data", help="Folder of a collection, as BEIR has it; repeatable.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", help="Write the numbers to this JSON file.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which relevance judgements to take.")] = "test",
    batch_size: BatchSize = 32,
    bm25: Annotated[bool, typer.Option("--bm25/--no-bm25", help="Compare with BM25.")] = True,
) -> None:
    """Measure a model on retrieval collections."""
    from rich.console import Console

    from st_l0.encoder import SparseEncoder
    from st_l0.evaluation import evaluate as run
    from st_l0.evaluation import read_collection, render, write_json

    collections = [read_collection(folder, split) for folder in data]
    if len({collection.name for collection in collections}) < len(collections):
        raise InputError(
            "two collections have the same name: rename the folder of one"
        )  # before the long part
    encoder = SparseEncoder.from_pretrained(model)
    progress = sys.stderr.isatty()
    reports = [
        run(encoder, collection, batch_size=batch_size, bm25=bm25, progress=progress)
        for collection in collections
    ]
    console = Console()
    console.print(render(reports))
    if output is not None:
        with _writing(output):
            write_json(reports, output)


@app.command()
def index(
    model: ModelName,
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A .jsonl, .txt or .parquet file, or a BEIR folder.")
    ],
    to: Annotated[
        str, typer.Option("--to", metavar="FOLDER", help="The index; one that exists is added to.")
    ],
    batch_size: BatchSize = 32,
) -> None:
    """Encode a corpus into an index. Started again after an interruption, it goes on."""
    from st_l0.data import read_documents
    from st_l0.encoder import SparseEncoder
    from st_l0.index import open_index
    from st_l0.indexing import check_model, index_corpus, index_metadata

    documents = read_documents(corpus)
    first = next(documents)  # an unusable corpus should leave no empty index behind
    encoder = SparseEncoder.from_pretrained(model)
    metadata = index_metadata(encoder, model)
    with _writing(to):
        opened = open_index(to, vocabulary_size=len(encoder.query_weights), metadata=metadata)
        check_model(encoder, opened, to)
        before = len(opened)
        added = index_corpus(encoder, chain([first], documents), opened, batch_size=batch_size)
    typer.echo(f"{to}: {added} documents added, {len(opened)} in all")
    if before:
        typer.echo("documents whose ids were in the index already were left as they are")


@app.command()
def search(
    index: Annotated[str, typer.Argument(metavar="INDEX", help="The index.")],
    query: Annotated[str | None, typer.Argument(help="Without one, a prompt asks for queries.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents to find.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each token adds to a score.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Instead of the model that the index names.")
    ] = None,
) -> None:
    """Find the best documents for a query."""
    from st_l0.index import open_index

    if query is None and not sys.stdin.isatty():
        raise InputError("no QUERY was given, and there is no terminal to ask for one")
    opened = open_index(index, create=False)
    name = model or opened.metadata.get("model")
    if name is None:
        raise InputError(f"{index} does not say which model made it: give --model")
    from st_l0.encoder import SparseEncoder
    from st_l0.indexing import check_model
    from st_l0.results import print_hits

    encoder = SparseEncoder.from_pretrained(name)
    check_model(encoder, opened, index)
    if query is not None:
        if not print_hits(encoder, opened, query, k, explain):
            raise InputError(f"the model knows no word of the query {query!r}: nothing to look for")
        return
    for text in _ask():
        if not print_hits(encoder, opened, text, k, explain):
            typer.echo("the model knows no word of this query: nothing to look for")


@app.command()
def idf(
    corpus: Annotated[
        Path, typer.Argument(metavar="CORPUS", help="A .jsonl, .txt or .parquet file, or a BEIR folder.")
    ],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="MODEL", help="Folder or Hub id with the tokenizer.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The idf.json to write.")],
) -> None:
    """Count a corpus into a table of query weights."""
    from transformers import AutoTokenizer

    from st_l0.data import read_documents
    from st_l0.idf import compute_idf, write_idf

    try:
        loaded = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:  # their messages do not always name what was looked for
        raise InputError(f"{tokenizer}: no tokenizer found there: {error}") from error
    weights = compute_idf(
        (document.text for document in read_documents(corpus)), loaded, progress=sys.stderr.isatty()
    )
    with _writing(output):
        write_idf(output, weights, loaded)
    typer.echo(f"{output}: {len(weights)} tokens")


@app.command()
def quickstart(
    output: Annotated[Path | None, typer.Option("--output", help="Folder for the result.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="ID", help="The model to start from.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Docstrings to use at most.")] = None,
) -> None:
    """Train, evaluate and search on this machine, in one go."""
    from st_l0.quickstart import run_quickstart

    options: dict[str, Any] = {
        "output": output,
        "base_model": base_model,
        "max_steps": max_steps,
        "limit": limit,
    }
    with _writing(output or "runs/quickstart"):
        run_quickstart(**{name: value for name, value in options.items() if value is not None})


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
def _writing(target: str | Path | None) -> Iterator[None]:
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


def _ask() -> Iterator[str]:
    while True:
        try:
            query = input("query> ")
        except EOFError:
            typer.echo()
            return
        if not query.strip():
            return
        yield query
