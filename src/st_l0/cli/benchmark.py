"""The part of ``st-l0 evaluate`` that measures on benchmarks and submits what was measured."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_l0.cli.app import say, writing
from st_l0.errors import InputError
from st_l0.utils.terminal import is_terminal, open_console, printable, to_json

if TYPE_CHECKING:
    from st_l0.evaluation.benchmarking import TaskReport
    from st_l0.index import Index

_PANEL = "Benchmarks"

BenchmarkName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="BEIR, BEIR-13, NanoBEIR, 'MTEB(eng, v2)' or another of mteb.",
        rich_help_panel=_PANEL,
    ),
]
TaskNames = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAMES",
        help="Only these tasks, by mteb's names; with commas, repeatable.",
        rich_help_panel=_PANEL,
    ),
]
DataRoot = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Take the data from here: a folder a task, BEIR's form.",
        rich_help_panel=_PANEL,
    ),
]
EntryName = Annotated[
    str | None,
    typer.Option(
        metavar="ORG/MODEL", help="File the results of a folder under this name.", rich_help_panel=_PANEL
    ),
]
Revision = Annotated[
    str | None, typer.Option(metavar="COMMIT", help="Of a model of the Hub.", rich_help_panel=_PANEL)
]
Results = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where results are kept, and found again; mteb's by default.",
        rich_help_panel=_PANEL,
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Search on a server: opensearch://HOST:9200/NAME; indexes of that name are made and removed.",
        rich_help_panel=_PANEL,
    ),
]
Reference = Annotated[
    bool,
    typer.Option("--reference", help="Let mteb's own loader and search measure.", rich_help_panel=_PANEL),
]
Submit = Annotated[
    bool,
    typer.Option(
        "--submit", help="Commit what was measured for mteb's results repository.", rich_help_panel=_PANEL
    ),
]
Meta = Annotated[
    list[str] | None,
    typer.Option(
        metavar="KEY=VALUE",
        help="What the model's card does not say: license=mit, training_datasets=MSMARCO,NQ; repeatable.",
        rich_help_panel=_PANEL,
    ),
]


def run_benchmark(
    model: str,
    *,
    benchmark: str | None,
    tasks: list[str] | None,
    data_root: Path | None,
    name: str | None,
    revision: str | None,
    results: Path | None,
    engine: str | None,
    reference: bool,
    submit: bool,
    meta: list[str] | None,
    output: Path | None,
    batch_size: int,
    bm25: bool,
    trust_remote_code: bool,
    as_json: bool,
) -> None:
    """Measure, print, write and submit, as the options of ``st-l0 evaluate`` say."""
    from st_l0.evaluation import leaderboard
    from st_l0.evaluation.benchmark_report import (
        notes,
        render_benchmark,
        summarise_benchmark,
        write_benchmark,
    )
    from st_l0.evaluation.benchmarks import select_tasks
    from st_l0.evaluation.model_meta import read_stated
    from st_l0.evaluation.report import check_results, write_results
    from st_l0.index import check_target

    if engine is not None:
        check_target(engine)
    stated = read_stated(meta or ())
    names = [part.strip() for option in tasks or () for part in option.split(",") if part.strip()]
    selected = select_tasks(benchmark, names)
    if selected.left_out:
        _tell(f"left out, neither retrieval nor reranking of texts: {', '.join(selected.left_out)}")
    if output is not None:
        check_results(output, [task.metadata.name for task in selected.tasks])
    own_data = data_root is not None
    entry = leaderboard.enter(
        model,
        name=name,
        revision=revision,
        results=results,
        own_data=own_data,
        stated=stated,
        trust_remote_code=trust_remote_code,
    )
    if submit:
        leaderboard.check_submittable(entry, selected.tasks, reference=reference, own_data=own_data)
    elif entry.commit is None and name is None:
        _tell(f"{model} has no name: its results are kept in {entry.shelf.folder}, and none can be submitted")
    found: dict[str, Any] = {}
    reports: list[TaskReport] = []
    with _indexes(engine) as make_index:
        for report in leaderboard.measure(
            entry,
            selected.tasks,
            reference=reference,
            bm25=bm25,
            data_root=data_root,
            batch_size=batch_size,
            progress=is_terminal(sys.stderr),
            results=None if output is None else found,
            make_index=make_index,
        ):
            reports.append(report)
            score = 100 * report["model"]["main_score"]
            place = f"{len(reports)}/{len(selected.tasks)} {report['collection']}"
            _tell(f"{place}: {report['metric']} {score:.2f}")
    summary = summarise_benchmark(
        reports,
        benchmark=selected.name,
        name=entry.meta.name,
        revision=entry.meta.revision,
        left_out=selected.left_out,
        data_root=data_root,
    )
    if as_json:
        say(to_json(summary))
    else:
        console = open_console()
        console.print(render_benchmark(summary))
        for note in notes(summary):
            console.print(printable(note), markup=False)
    if output is not None:
        with writing(output):
            write_benchmark(summary, output)
            write_results(found, output)
    if submit:
        done = leaderboard.submit_results(entry, selected.tasks)
        if not done.results:
            _tell("the results repository has all of these results: nothing to submit")
        else:
            _tell(f"{done.results} results committed on the branch {done.branch} in {done.folder}")
            _tell(
                f"push it to your fork of the repository and open a pull request: git push FORK {done.branch}"
            )


def _indexes(engine: str | None) -> AbstractContextManager[Callable[[], Index]]:
    """What makes the indexes of a run: in memory, or on a server, from which they go at the end."""
    from st_l0.index import EmbeddedIndex

    if engine is None:
        return nullcontext(EmbeddedIndex)
    from st_l0.index.opensearch.scratch import scratch

    return scratch(engine)


def check_options(data: list[Path] | None, dtype: str, split: str, options: dict[str, Any]) -> bool:
    """Whether a benchmark is asked for; options that go with the other way only are refused.

    Raises:
        InputError: Neither a collection nor a benchmark is given, or both, or options of both.
    """
    wanted = bool(options["benchmark"] or options["tasks"])
    if not wanted:
        stray = next((key for key, value in options.items() if value), None)
        if stray is not None:
            raise InputError(
                f"--{stray.replace('_', '-')} goes with a benchmark: give --benchmark or --tasks"
            )
        if not data:
            raise InputError("nothing to measure on: give --data, --benchmark or --tasks")
        return False
    if data:
        raise InputError("--data and a benchmark are measured apart: give one of them")
    if dtype != "float32":
        raise InputError(f"--dtype {dtype}: benchmarks are measured in float32; leave it out")
    if options["engine"] and (options["reference"] or options["submit"]):
        raise InputError("--engine: what is submitted is measured by mteb's own search; leave it out")
    if options["engine"] and options["results"] is None:
        raise InputError(
            "--engine: the server rounds weights, so its results are kept apart: give --results FOLDER"
        )
    if split != "test":
        raise InputError("--split: a benchmark has its own splits; leave it out")
    return True


def _tell(text: str) -> None:
    typer.echo(printable(text), err=True)
