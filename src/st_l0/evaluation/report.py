"""Reports for people (tables) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from st_l0.errors import InputError
from st_l0.evaluation.run import EvaluationReport
from st_l0.files import replace_file

_Systems = dict[str, dict[str, float]]

_COSTS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("flops", "FLOPS", "{:.2f}".format),
    ("query_active_dims", "query dims", "{:.1f}".format),
    ("document_active_dims", "document dims", "{:.0f}".format),
    ("document_active_dims_p95", "95th percentile", "{:.0f}".format),
    ("documents_per_second", "documents/s", "{:,.0f}".format),
    ("encode_query_ms", "encode ms/query", "{:.3f}".format),
    ("search_ms_per_query", "search ms/query", "{:.3f}".format),
)


def summarise(reports: Sequence[EvaluationReport]) -> dict[str, Any]:
    """Bring reports into the form of the JSON file.

    Args:
        reports: At least one, each of another collection.

    Returns:
        One report as it is; several as
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
    if len(reports) == 1:
        return dict(reports[0])
    return {"collections": collections, "average": _average([_systems(report) for report in reports])}


def write_json(reports: Sequence[EvaluationReport], path: str | Path) -> None:
    """Write reports as JSON, in the form that `summarise` gives; ``path`` is replaced as a whole.

    Raises:
        InputError: there is no report, or two are of one collection.
    """
    text = json.dumps(summarise(reports), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_file(path) as new:
        new.write_text(text, encoding="utf-8")


def render(reports: Sequence[EvaluationReport]) -> list[Table]:
    """Tables for ``rich``: what is found, model and BM25 side by side, and what it costs.

    Args:
        reports: At least one, each of another collection; several get a row of averages.

    Raises:
        InputError: there is no report, or two are of one collection.
    """
    summary = summarise(reports)
    rows = [(report["collection"], _systems(report)) for report in reports]
    if "average" in summary:
        rows.append(("average", summary["average"]))
    return [_quality_table(reports, rows), _cost_table(reports, rows)]


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


def _quality_table(reports: Sequence[EvaluationReport], rows: Sequence[tuple[str, _Systems]]) -> Table:
    recalls = [key for report in reports for key in report["model"] if key.startswith("recall@")]
    labels = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"} | {key: f"R@{key[7:]}" for key in recalls}
    shown = ["bm25", "model"] if any("bm25" in systems for _, systems in rows) else ["model"]
    table = _table("Quality", ["documents", "queries"])
    for label in labels.values():
        for system in shown:
            table.add_column(f"{label}\n{system.replace('bm25', 'BM25')}", justify="right")
    sizes = [(f"{report['documents']:,}", f"{report['queries']:,}") for report in reports]
    for (name, systems), size in zip(rows, [*sizes, ("", "")], strict=False):
        cells: list[str] = []
        for key in labels:
            values = [systems.get(system, {}).get(key) for system in shown]
            best = max((value for value in values if value is not None), default=None)
            cells += [_score(value, len(shown) > 1 and value == best) for value in values]
        _add_row(table, len(reports), name, *size, *cells)
    return table


def _cost_table(reports: Sequence[EvaluationReport], rows: Sequence[tuple[str, _Systems]]) -> Table:
    measured = {key for _, systems in rows for key in systems["model"]}
    columns = [column for column in _COSTS if column[0] in measured]
    with_bm25 = any("bm25" in systems for _, systems in rows)
    labels = [label for _, label, _ in columns]
    table = _table("Cost of the model", [*labels, "BM25 search ms/query"] if with_bm25 else labels)
    for name, systems in rows:
        model = systems["model"]
        cells = [form(model[key]) if key in model else "–" for key, _, form in columns]
        if with_bm25:
            cells.append(f"{systems['bm25']['search_ms_per_query']:.3f}" if "bm25" in systems else "–")
        _add_row(table, len(reports), name, *cells)
    return table


def _table(title: str, columns: Sequence[str]) -> Table:
    table = Table(title=title)
    table.add_column("collection")
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _add_row(table: Table, reports: int, name: str, *cells: str) -> None:
    """Add a row; the average, which comes after all reports, is set apart by a line."""
    if table.row_count == reports:
        table.add_section()
    table.add_row(escape(name), *cells)


def _score(value: float | None, best: bool) -> str:
    if value is None:
        return "–"
    return f"[bold]{value:.3f}[/bold]" if best else f"{value:.3f}"
