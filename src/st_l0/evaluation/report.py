"""Reports for people (tables) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from st_l0.errors import InputError
from st_l0.evaluation.measure import EvaluationReport, SystemResults
from st_l0.evaluation.trec import write_run
from st_l0.utils.files import replace_file
from st_l0.utils.terminal import cell

_Systems = dict[str, dict[str, float]]

# Key in the report, column title, format; a column shows up if any system was measured on it. The first
# two and recall, whose depth the report names, are qualities: of those the best is bold.
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("ndcg@10", "nDCG@10", "{:.3f}".format),
    ("mrr@10", "MRR@10", "{:.3f}".format),
    ("flops", "FLOPS", "{:.2f}".format),
    ("query_active_dims", "query\ndims", "{:.1f}".format),
    ("document_active_dims", "doc\ndims", "{:.0f}".format),
    ("documents_per_second", "docs/s", "{:,.0f}".format),
    ("encode_query_ms", "encode\nms/q", "{:.3f}".format),
    ("search_ms_per_query", "search\nms/q", "{:.3f}".format),
)


def summarise(reports: Sequence[EvaluationReport]) -> dict[str, Any]:
    """Bring reports into the form of the JSON file.

    Args:
        reports: At least one, each of another collection.

    Returns:
        ``{"collections": {name: report}, "average": {"bm25": {…}, "model": {…}}}``, where an average is the
        plain mean over the collections, of what all of them hold.

    Raises:
        InputError: there is no report, or two are of one collection.
    """
    if not reports:
        raise InputError("no reports; evaluate at least one collection")
    collections = {report["collection"]: report for report in reports}
    if len(collections) < len(reports):
        raise InputError("two reports are of collections of one name; rename one collection's folder")
    return {"collections": collections, "average": _average([_systems(report) for report in reports])}


def write_json(reports: Sequence[EvaluationReport], path: str | Path) -> None:
    """Write reports as JSON, in the form that `summarise` gives; ``path`` is replaced as a whole.

    Raises:
        InputError: there is no report, or two are of one collection.
    """
    text = json.dumps(summarise(reports), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def write_results(results: Mapping[str, Mapping[str, SystemResults]], path: str | Path) -> None:
    """Write what the numbers of a JSON file are the means of, beside it; each file is replaced as a whole.

    For ``evaluation.json``: ``evaluation.per_query.json`` holds the quality of each query, as
    ``{collection: {system: {query: {"ndcg@10": …, "mrr@10": …, "recall@<k>": …}}}}``, and
    ``evaluation.<collection>.<system>.run`` what was found, see `st_l0.evaluation.trec.write_run`.

    Args:
        results: Name of a collection → what `evaluate` gave as its ``results``.
        path: The JSON file that `write_json` writes.

    Raises:
        InputError: a collection's name is no file name, or `write_run` refuses a run.
    """
    path = Path(path)
    stray = next((name for name in results if Path(name).name != name), None)
    if stray is not None:
        raise InputError(f"{path}: collection {stray!r:.40} cannot be part of a file name; rename it")
    per_query = {
        name: {system: found.per_query for system, found in systems.items()}
        for name, systems in results.items()
    }
    with replace_file(path.with_name(f"{path.stem}.per_query.json")) as new:
        new.write_text(json.dumps(per_query, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, systems in results.items():
        for system, found in systems.items():
            write_run(found.run, path.with_name(f"{path.stem}.{name}.{system}.run"), system)


def render(reports: Sequence[EvaluationReport]) -> Table:
    """A table for ``rich``, one row a system and collection; the best quality of a collection is bold.

    Args:
        reports: At least one, each of another collection; several get rows of averages.

    Raises:
        InputError: there is no report, or two are of one collection.
    """
    summary = summarise(reports)
    blocks = [(report["collection"], _systems(report)) for report in reports]
    if len(reports) > 1:
        blocks.append(("average", summary["average"]))
    measured = {key for _, systems in blocks for values in systems.values() for key in values}
    recalls = sorted(key for key in measured if key.startswith("recall@"))
    quality = [*_COLUMNS[:2], *((key, f"R@{key[7:]}", "{:.3f}".format) for key in recalls)]
    columns = [column for column in (*quality, *_COLUMNS[2:]) if column[0] in measured]
    graded = {key for key, _, _ in quality}
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("collection")
    table.add_column("")
    for _, label, _ in columns:
        table.add_column(label, justify="right")
    for title, systems in blocks:
        for system, values in systems.items():
            cells = [_cell(key, form, values, systems, key in graded) for key, _, form in columns]
            table.add_row(cell(title), "BM25" if system == "bm25" else system, *cells)
            title = ""
    return table


def _cell(
    key: str, form: Callable[[float], str], values: dict[str, float], systems: _Systems, graded: bool
) -> str:
    if key not in values:
        return "–"
    text = form(values[key])
    best = max(other[key] for other in systems.values() if key in other)
    return f"[bold]{text}[/bold]" if graded and values[key] == best else text


def _systems(report: EvaluationReport) -> _Systems:
    bm25 = {"bm25": report["bm25"]} if "bm25" in report else {}
    return bm25 | {"model": report["model"]}


def _average(reports: Sequence[_Systems]) -> _Systems:
    return {
        system: {
            key: sum(report[system][key] for report in reports) / len(reports)
            for key in reports[0][system]
            if all(key in report[system] for report in reports)
        }
        for system in reports[0]
        if all(system in report for report in reports)
    }
