"""The results of a benchmark, for people (a table with the papers' rows) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from st_l0.evaluation.benchmarking import TaskReport
from st_l0.evaluation.benchmarks import BEIR_13, PUBLISHED
from st_l0.evaluation.report import REPORT, summarise
from st_l0.evaluation.shelf import INDEX
from st_l0.utils.files import replace_file
from st_l0.utils.terminal import cell

_COSTS = (
    ("flops", "FLOPS", "{:.2f}"),
    ("query_active_dims", "query\ndims", "{:.1f}"),
    ("document_active_dims", "doc\ndims", "{:.0f}"),
)


def summarise_benchmark(
    reports: Sequence[TaskReport],
    *,
    benchmark: str | None,
    name: str,
    revision: str,
    left_out: Sequence[str],
    data_root: str | Path | None = None,
) -> dict[str, Any]:
    """Bring reports into the form of the JSON file.

    Returns:
        What `st_l0.evaluation.report.summarise` gives (``collections`` and ``average``), with ``benchmark``,
        ``name``, ``revision``, ``left_out`` and, where the data came from folders, ``data_root``. Where all
        tasks of BEIR-13 are among them, also ``beir_13``, the average over those, and ``published``, rows of
        papers on the same tasks, with nDCG@10 from 0 to 1.
    """
    summary: dict[str, Any] = {"benchmark": benchmark, "name": name, "revision": revision}
    summary |= {"left_out": [*left_out]} | ({} if data_root is None else {"data_root": str(data_root)})
    summary |= summarise(reports)  # type: ignore[arg-type]  # whose keys these reports have
    beir = [report for report in reports if report["collection"] in BEIR_13]
    if len(beir) == len(BEIR_13):
        summary["beir_13"] = summarise(beir)["average"]  # type: ignore[arg-type]
        summary["published"] = [
            {
                "system": row.system,
                "ndcg@10": round(row.ndcg / 100, 4),
                "source": row.source,
                "measured_here": False,
            }
            | ({} if row.flops is None else {"flops": row.flops})
            for row in PUBLISHED
        ]
    return summary


def write_benchmark(summary: dict[str, Any], path: str | Path) -> None:
    """Write what `summarise_benchmark` gave as JSON; ``path`` is replaced as a whole.

    Raises:
        InputError: ``path`` is something else than a report, which would be lost.
    """
    with replace_file(path, REPORT) as new:
        new.write_text(
            json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def render_benchmark(summary: dict[str, Any]) -> Table:
    """A table for ``rich``: a row a task, the average, and below it the rows of papers.

    Args:
        summary: What `summarise_benchmark` gave.
    """
    reports = summary["collections"].values()
    compared = any("bm25" in report for report in reports)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column(cell(summary["benchmark"] or "tasks"))
    titles = (*(("BM25",) if compared else ()), "model", *(title for _, title, _ in _COSTS))
    for title in titles:
        table.add_column(title, justify="right")
    for report in reports:
        metric = report["metric"].replace("_at_", "@")
        label = report["collection"] + ("" if metric == "ndcg@10" else f" ({metric})")
        table.add_row(cell(label), *_cells(report, compared))
    if len(reports) > 1:
        table.add_row(f"average of {len(reports)}", *_cells(summary["average"], compared), style="bold")
    if "beir_13" in summary:
        if len(reports) > len(BEIR_13):
            table.add_row("average of BEIR-13", *_cells(summary["beir_13"], compared), style="bold")
        table.add_row("published, not measured here (BEIR-13):")
        for row in PUBLISHED:
            flops = "–" if row.flops is None else f"{row.flops:.1f}"
            empty = ("",) if compared else ()
            table.add_row(f"  {row.system} ({row.source})", *empty, f"{row.ndcg:.2f}", flops, "–", "–")
    return table


def notes(summary: dict[str, Any]) -> Iterator[str]:
    """Sentences that go with the table: what was measured, how, and what was not."""
    reports = list(summary["collections"].values())
    yield f"{summary['name']} at {summary['revision']}; nDCG@10 (where a row names no other), times 100."
    if "data_root" in summary:
        yield f"The data are those in {summary['data_root']}, whether or not they are the benchmark's own."
    if summary["left_out"]:
        yield f"Left out, neither retrieval nor reranking of texts: {', '.join(summary['left_out'])}."
    if any("bm25" in report for report in reports):
        yield "BM25 is Lucene's (k1 1.2, b 0.75) with English stop words and stemmer."
    for state, sentence in (
        ("no hits", "A document whose id is the query's own is no hit in {}."),
        ("hits", "A document whose id is the query's own is a hit, as mteb has it, in {}."),
    ):
        if names := [report["collection"] for report in reports if report["own_documents"] == state]:
            yield sentence.format(", ".join(names))
    if any(report["measured_by"] == INDEX for report in reports):
        yield (
            "Searched in an index: all measures @100 and below equal those of mteb's own search where 100 "
            "documents share a token with the query; @1000 and nAUC do not, since none of score 0 is found."
        )


def _cells(systems: dict[str, Any], compared: bool) -> Iterator[str]:
    scores = {name: systems[name].get("main_score") for name in ("bm25", "model") if name in systems}
    best = max((score for score in scores.values() if score is not None), default=None)
    for name in ("bm25", "model") if compared else ("model",):
        score = scores.get(name)
        text = "–" if score is None else f"{100 * score:.2f}"
        without = systems.get(name, {}).get("without_hits", 0)
        text += f" (no hits: {without:.0%})" if without > 0.5 else ""
        yield f"[bold]{text}[/bold]" if score is not None and score == best else text
    for key, _, form in _COSTS:
        value = systems["model"].get(key)
        yield "–" if value is None else form.format(value)
