"""The command that compares runs on a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_l0.cli.app import app, say, writing


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="What evaluate --output wrote, or folders that hold evaluation.json; or of sweeps.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="The page; its numbers and figures are written beside it.")
    ] = Path("report.html"),
    baseline: Annotated[
        str | None,
        typer.Option(help="System that the others are compared with; by default BM25, or the first one."),
    ] = None,
    title: Annotated[str, typer.Option(help="What stands above it.")] = "Sparse retrieval: runs compared",
    queries: Annotated[int, typer.Option(min=0, help="Queries to show, won and lost, of a collection.")] = 5,
) -> None:
    """Compare runs on one page: figures, tables with significance, queries won and lost."""
    from st_l0.errors import require
    from st_l0.reports.page import check_page, write_page
    from st_l0.reports.systems import read_systems

    require("matplotlib", "report")
    check_page(output)
    systems = read_systems(runs)
    with writing(output):
        page = write_page(systems, output, title=title, baseline=baseline, queries=queries)
    say(f"report: {page}")
