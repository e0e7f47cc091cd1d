"""Commands about models: thin shells over one public function each.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import ModelName
from st_l0.cli.publishing import Card, Evaluation

if TYPE_CHECKING:
    pass


@app.command()
def quickstart(
    corpus: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|FILE",
            help="Your own documents: a folder of text files, or what st-l0 index takes. Without it: the "
            "docstrings of this Python.",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Folder for the result.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="ID", help="The model to start from.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="Docstrings to use, or documents to train and measure on, at most."),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train on documents without any query, evaluate, index and search on this machine, in one go."""
    from st_l0.quickstart.pipeline import run_quickstart

    options: dict[str, Any] = {
        "corpus": corpus,
        "output": output,
        "base_model": base_model,
        "max_steps": max_steps,
        "limit": limit,
        "trust_remote_code": trust_remote_code or None,
    }
    with writing(output or "runs/quickstart"):
        run_quickstart(**{name: value for name, value in options.items() if value is not None})


@app.command()
def export(
    model: ModelName,
    output: Annotated[Path, typer.Option("--output", help="Folder for the copy.")],
    half: Annotated[bool, typer.Option("--half/--whole", help="Weights as float16, half the size.")] = True,
    max_seq_length: Annotated[int | None, typer.Option(min=8, help="Tokens of a document.")] = None,
    layout: Annotated[
        str,
        typer.Option(help="root: transformer and idf.json at the root, for every tool; or folders."),
    ] = "root",
    punctuation: Annotated[
        bool,
        typer.Option("--punctuation/--no-punctuation", help="Punctuation keeps its query weights, or 0."),
    ] = True,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Also onnx/model.onnx, the document side without torch.")
    ] = False,
    evaluation: Evaluation = None,
    card: Card = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Copy a trained checkpoint for others to use."""
    from st_l0.hub.exporting import export as run

    options: dict[str, Any] = {"half": half, "max_seq_length": max_seq_length, "layout": layout}
    options |= {"punctuation": punctuation, "onnx": onnx, "evaluation": evaluation or (), "card": card}
    with writing(output):
        folder = run(model, output, trust_remote_code=trust_remote_code, **options)
    say(f"model: {folder}")
