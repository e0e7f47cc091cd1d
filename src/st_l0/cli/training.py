"""Commands about training and its data: thin shells over one public function each.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import ColumnOption, as_columns
from st_l0.cli.words import read_weight
from st_l0.errors import InputError
from st_l0.utils.terminal import cell, is_terminal, open_console, printable, to_json


@app.command()
def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="Path of a recipe, or a name that st-l0 recipes lists.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key.path=value", help="Values that replace those of the recipe."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = False,
    changed: Annotated[
        bool, typer.Option("--changed", help="With --resume: the recipe or the data may be others.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, show what it would do, and stop.")
    ] = False,
    devices: Annotated[
        int | None, typer.Option(min=1, help="For --dry-run: devices to plan for.", show_default="1")
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train a model by a recipe, such as `st-l0 train l0_mask training.max_steps=10`."""
    from st_l0.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or ())
    if trust_remote_code:
        sections = [name for name in ("model", "teachers") if getattr(loaded, name) is not None]
        trusted = [f"{name}.trust_remote_code=true" for name in sections]
        loaded = load_recipe(recipe, [*(overrides or ()), *trusted])
    if dry_run:
        from st_l0.training.plan import dry_run as plan
        from st_l0.training.plan_table import render

        open_console().print(render(plan(loaded, devices=devices or 1)))
        return
    if devices is not None:
        raise InputError("--devices is for --dry-run: start several processes with accelerate launch")
    from st_l0.training.train_model import train as run

    with writing(loaded.output):
        folder = run(loaded, resume=resume, changed=changed)
    if os.environ.get("RANK", "0") == "0":  # torchrun starts one of us for each device
        say(f"model: {folder}")


@app.command()
def recipes(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema of recipes instead, for editors.")
    ] = False,
) -> None:
    """List the recipes that come with the package: name, method, paper and the data that each wants."""
    if schema:
        from st_l0.training.recipe import Recipe
        from st_l0.training.schema import json_schema

        typer.echo(json.dumps(json_schema(Recipe), indent=2, ensure_ascii=False))
        return
    from st_l0.training.recipe_files import list_recipes, recipes_folder

    found = [(recipe.name, recipe.method, recipe.paper, recipe.data) for recipe in list_recipes()]
    if not is_terminal(sys.stdout):
        with writing("standard output"):
            for row in found:
                typer.echo("\t".join(map(printable, row)))
        return
    from rich.table import Column, Table

    caption = cell(f"in {recipes_folder()}")
    table = Table(Column("name", no_wrap=True), "method", "paper", "data", caption=caption)
    for row in found:
        table.add_row(*map(cell, row))
    open_console().print(table)


@app.command()
def teach(
    data: Annotated[
        list[str], typer.Argument(metavar="DATA...", help="Training rows: files, folders or Hub names.")
    ],
    teachers: Annotated[
        list[str],
        typer.Option(
            "--teacher",
            metavar="KIND:MODEL",
            help="dense, sparse, cross-encoder or seq2seq and folder or Hub id; or stored ones; repeatable.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the scored rows.")],
    corpus: Annotated[
        str | None, typer.Option(help="Where rows of ids find documents: a BEIR folder, file or Hub name.")
    ] = None,
    queries: Annotated[str | None, typer.Option(help="The same for queries.")] = None,
    repair_latin1: Annotated[
        bool, typer.Option("--repair-latin1", help="Repair texts that are UTF-8 read as latin1.")
    ] = False,
    scale: Annotated[float, typer.Option(help="Range of the scores: 0 to this.")] = 30.0,
    weights: Annotated[
        list[float] | None, typer.Option("--weight", help="What each teacher counts; by default the same.")
    ] = None,
    query_prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--query-prompt",
            metavar="KIND:MODEL=TEXT",
            help="What a dense or sparse teacher reads before a query, not its own prompt; repeatable.",
        ),
    ] = None,
    document_prompts: Annotated[
        list[str] | None,
        typer.Option("--document-prompt", metavar="KIND:MODEL=TEXT", help="The same before a document."),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts that a teacher takes at once.")] = 32,
    column: ColumnOption = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Score training rows with an ensemble of teachers. Started again after an interruption, it goes on."""
    from st_l0.data import open_texts, read_rows
    from st_l0.teachers import EnsembleTeacher, load_teacher
    from st_l0.teachers import teach as run
    from st_l0.teachers.teaching import check_output
    from st_l0.utils.distributed import join, rank

    check_output(output)
    prompts: dict[str, dict[str, str]] = {spec: {} for spec in teachers}
    for option, given in (("query", query_prompts), ("document", document_prompts)):
        for text in given or ():
            spec, prompt = _teacher_and_text(f"--{option}-prompt", text, teachers)
            prompts[spec][option] = prompt
    join()
    columns = as_columns(column)
    options: dict[str, Any] = {"repair_latin1": repair_latin1, "columns": columns}
    rows = read_rows(
        data,
        corpus=None if corpus is None else open_texts(corpus, "corpus", **options),
        queries=None if queries is None else open_texts(queries, "queries", **options),
        columns=columns,
    )
    loading: dict[str, Any] = {"batch_size": batch_size, "trust_remote_code": trust_remote_code}
    loaded = [load_teacher(spec, prompts=prompts[spec], **loading) for spec in teachers]
    ensemble = EnsembleTeacher(loaded, scale, weights)
    with writing(output):
        folder = run(rows, ensemble, output, by_id=corpus is not None)
    if rank() == 0:
        say(f"scores: {folder}")


def _teacher_and_text(option: str, given: str, teachers: list[str]) -> tuple[str, str]:
    """One of the teachers, and what is said of it behind an equals sign."""
    for spec in teachers:
        if given.startswith(f"{spec}="):
            return spec, given[len(spec) + 1 :]
    raise InputError(f"{option} {given!r:.80}: begins with no --teacher; write KIND:MODEL=TEXT")


@app.command()
def mine(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
    ],
    data: Annotated[
        Path,
        typer.Argument(metavar="DATA", help="A BEIR folder or .zip, or a .jsonl file of query and positive."),
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the rows with hard negatives.")],
    split: Annotated[str, typer.Option(help="Which relevance judgements of a BEIR folder.")] = "train",
    index: Annotated[
        str | None, typer.Option(help="An index of these documents that exists already.")
    ] = None,
    number: Annotated[int, typer.Option(min=1, help="Hard negatives of each pair.")] = 8,
    depth: Annotated[
        str, typer.Option(metavar="FIRST:LAST", help="Ranks to look at, the known positives left out.")
    ] = "1:100",
    margin: Annotated[
        float | None, typer.Option(help="Leave out what scores closer to the positive than this.")
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option(help="Leave out what scores above this share of the positive's score.")
    ] = None,
    bm25: Annotated[
        str, typer.Option(metavar="NUMBER|auto", help="How much BM25 counts in a score beside the model.")
    ] = "0",
    batch_size: Annotated[int, typer.Option(min=1, help="Documents encoded at once.")] = 32,
    column: ColumnOption = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as one JSON object, for scripts.")
    ] = False,
) -> None:
    """Find hard negatives: documents that a model ranks high and that are not known to be right."""
    from st_l0.mining import mine_collection

    first, _, last = depth.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"--depth {depth}: give two ranks, such as 10:100")
    with writing(output):
        report = mine_collection(
            model,
            data,
            output,
            split=split,
            index_folder=index,
            number=number,
            depth=(int(first), int(last)),
            margin=margin,
            max_ratio=max_ratio,
            bm25=read_weight(bm25, "--bm25"),
            batch_size=batch_size,
            columns=as_columns(column),
            trust_remote_code=trust_remote_code,
        )
    rows = output / "train.jsonl"
    if as_json:
        say(to_json({"output": str(rows), **asdict(report)}))
        return
    say(f"{rows}: {report.rows} of {report.pairs} pairs ({report.dropped} had too few negatives)")
    if report.own:
        say(f"a query's own document is no negative: {report.own} of {report.queries} queries have one")


@app.command("small-data")
def small_data(
    output: Annotated[
        Path, typer.Option("--output", help="Folder for the result; what is there already is kept.")
    ] = Path("runs/small"),
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="ID", help="The model to start from.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Docstrings to use at most.")] = 1200,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Make what the recipes of training_recipes/small read, from the docstrings of this Python."""
    from st_l0.quickstart.small_data import prepare_small

    with writing(output):
        folder = prepare_small(
            output, limit=limit, base_model=base_model, trust_remote_code=trust_remote_code
        )
    say(f"small data: {folder}")


@app.command()
def sweep(
    settings: Annotated[
        Path, typer.Argument(metavar="SWEEP.yaml", help="What to vary, and what measures it.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="key.path=value", help="Values that replace those of the file."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option("--report", metavar="FOLDER", help="Write a table and a plot, anew after each run."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check all recipes, list the runs, and stop.")
    ] = False,
) -> None:
    """Train a grid of recipes and measure each. Started again after an interruption, it goes on."""
    from st_l0.errors import require
    from st_l0.sweeps.report import check_report, write_report
    from st_l0.sweeps.sweep import load_sweep, plan_runs, run_sweep

    if report is not None:
        require("matplotlib", "report")
        check_report(report, settings.stem)

    loaded = load_sweep(settings, overrides or ())
    if dry_run:
        for run in plan_runs(loaded):
            say(run.folder)
        return

    def update(results: list[dict[str, Any]]) -> None:
        if report is not None:
            with writing(report):
                write_report(loaded, results, report, settings.stem)

    with writing(loaded.output):
        run_sweep(loaded, done=update)
