"""What a sweep found: tables in Markdown and the curves of quality against cost."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import numpy as np

from st_l0.errors import InputError, require
from st_l0.evaluation.measure import EvaluationReport
from st_l0.evaluation.report import summarise
from st_l0.sweeps.sweep import Sweep, plan_runs
from st_l0.utils.files import replace_file
from st_l0.utils.terminal import printable

_MARKUP = re.compile(r"[\\`|*\[\]~$]|(?<!\w)_|_(?!\w)")  # an underscore within a word is none


class _Line(NamedTuple):
    """The runs of one variant and one point, seeds apart."""

    variant: str
    point: dict[str, Any]
    results: list[dict[str, Any]]

    def mean(self, *path: str) -> float:
        return fmean(_reach(result, path) for result in self.results)

    def spread(self, *path: str) -> float:
        values = [_reach(result, path) for result in self.results]
        return max(values) - min(values)


def write_report(sweep: Sweep, results: Sequence[dict[str, Any]], folder: str | Path, name: str) -> None:
    """Write ``NAME.md``, a table of all results, and ``NAME.svg``, nDCG@10 against FLOPS.

    A second table compares the variants at equal cost: their nDCG@10 between two of their points, on a
    straight line over log FLOPS, at steps of the square root of 2 and where a variant has its only point.

    Args:
        sweep: The sweep.
        results: What `st_l0.sweeps.sweep.run_sweep` returned, at least one.
        folder: Where to write.
        name: What the files are called.

    Raises:
        InputError: there is no result.
        MissingExtraError: the extra ``report`` is not installed.
    """
    if not results:
        raise InputError(f"{sweep.output}: no run is done; there is nothing to report")
    require("matplotlib", "report")
    lines = _lines([_in_the_shape_of_today(result) for result in results])
    folder = Path(folder)
    text = _table(sweep, lines, f"{name}.svg", missing=len(plan_runs(sweep)) - len(results))
    with replace_file(folder / f"{name}.md") as new:
        new.write_text(text, encoding="utf-8")
    with replace_file(folder / f"{name}.svg") as new:
        _plot(lines, new)


def _in_the_shape_of_today(result: dict[str, Any]) -> dict[str, Any]:
    """With the ``quality`` that `summarise` gives; of one collection, it once was that one's report alone."""
    quality = result["quality"]
    if "collections" in quality:
        return result
    return {**result, "quality": summarise([cast(EvaluationReport, quality)])}


def _lines(results: Sequence[dict[str, Any]]) -> list[_Line]:
    groups: dict[str, _Line] = {}
    for result in results:
        point = {key: value for key, value in result["point"].items() if key != "seed"}
        key = json.dumps([result["variant"], point])
        groups.setdefault(key, _Line(result["variant"], point, [])).results.append(result)
    variants = list(dict.fromkeys(line.variant for line in groups.values()))
    return sorted(groups.values(), key=lambda line: (variants.index(line.variant), -line.mean(*_COST)))


_COST = ("model", "flops")
_QUALITY = ("model", "ndcg@10")


def _reach(result: dict[str, Any], path: Sequence[str]) -> float:
    """A number of a result: of its average, or of the collection that the path begins with."""
    quality = result["quality"]
    if path[0] in ("model", "bm25"):
        found = quality["average"]
    else:
        found, path = quality["collections"][path[0]], path[1:]
    for key in path:
        found = found[key]
    return float(found)


def _table(sweep: Sweep, lines: list[_Line], plot: str, missing: int) -> str:
    first = lines[0].results[0]
    names = list(first["quality"]["collections"])
    if len(names) == 1:  # which is its own average
        names = []
    head = ["variant", "varied", "seeds", "nDCG@10", "±", *names, "FLOPS", "dims", "steps", "minutes"]
    rows = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    bm25 = [f"{_reach(first, (name, 'bm25', 'ndcg@10')):.3f}" for name in names]
    rows.append(["BM25", "", "", f"{_reach(first, ('bm25', 'ndcg@10')):.3f}", "", *bm25, "", "", "", ""])
    for line in lines:
        seconds = [result["seconds"]["training"] for result in line.results]
        minutes = [one / 60 for one in seconds if one is not None]  # not known where it was interrupted
        rows.append(
            [
                line.variant,
                ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in line.point.items()),
                " ".join(str(result["seed"]) for result in line.results),
                f"{line.mean(*_QUALITY):.3f}",
                f"{line.spread(*_QUALITY) / 2:.3f}" if len(line.results) > 1 else "",
                *(f"{line.mean(name, *_QUALITY):.3f}" for name in names),
                f"{line.mean(*_COST):.2f}",
                f"{line.mean('model', 'document_active_dims'):.0f}",
                str(line.results[0]["steps"] or ""),
                f"{fmean(minutes):.1f}" if minutes else "",
            ]
        )
    machines = sorted({result["machine"] for line in lines for result in line.results})
    return "\n".join(
        [
            *([*map(printable, sweep.note.splitlines()), ""] if sweep.note else []),
            *([f"**Not done yet: {missing} of the sweep's runs.**", ""] if missing else []),
            "nDCG@10, FLOPS and active dims a document are means over collections and seeds; ± is half of "
            "the distance between the best and the worst seed; minutes are those of one training.",
            "",
            *(f"Machine: {_plain(machine)}." for machine in machines),
            "",
            f"![nDCG@10 against FLOPS]({quote(plot)})",
            "",
            *map(_row, rows),
            "",
            *_at_equal_cost(lines),
        ]
    )


def _at_equal_cost(lines: list[_Line]) -> list[str]:
    curves: dict[str, tuple[list[float], list[float]]] = {}  # log2 of the cost, rising, and quality
    for line in sorted(lines, key=lambda line: line.mean(*_COST)):
        if line.mean(*_COST) > 0:
            costs, quality = curves.setdefault(line.variant, ([], []))
            costs.append(math.log2(line.mean(*_COST)))
            quality.append(line.mean(*_QUALITY))
    # Steps of the square root of 2 from 2^-10 to 2^10, and where a variant has its only point.
    steps = {step / 2 for step in range(-20, 21)}
    levels = steps | {costs[0] for costs, _ in curves.values() if len(costs) == 1}
    cells = {
        variant: {
            level: float(np.interp(level, costs, quality))
            for level in levels
            if costs[0] <= level <= costs[-1]
        }
        for variant, (costs, quality) in curves.items()
    }
    reached = [level for row in cells.values() for level in row]
    shared = sorted(level for level in levels if reached.count(level) > 1)
    if not shared:
        return []
    rows = [["variant", *(f"FLOPS {2.0**level:.2f}" for level in shared)], ["---", *["---:"] * len(shared)]]
    for variant in dict.fromkeys(line.variant for line in lines):
        row = cells.get(variant, {})
        rows.append([variant, *(f"{row[level]:.3f}" if level in row else "" for level in shared)])
    return [
        "nDCG@10 at equal cost, on a straight line over log FLOPS between the nearest points of a variant; "
        "empty where it has none on both sides:",
        "",
        *map(_row, rows),
        "",
    ]


def _row(cells: Sequence[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text of data for Markdown, in which nothing is markup, HTML or the end of a cell."""
    return _MARKUP.sub(r"\\\g<0>", html.escape(printable(text), quote=False))


def _plot(lines: list[_Line], path: Path) -> None:
    # Not pyplot, which keeps global state.
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    variants = list(dict.fromkeys(line.variant for line in lines))
    for number, variant in enumerate(variants):
        own = [line for line in lines if line.variant == variant]
        axes.errorbar(
            [line.mean(*_COST) for line in own],
            [line.mean(*_QUALITY) for line in own],
            yerr=[line.spread(*_QUALITY) / 2 for line in own],
            marker="os^vDPX*"[number % 8],
            color=f"C{number % 10}",
            linestyle="-" if number < 10 else "--",
            capsize=2,
            label=variant,
        )
    bm25 = _reach(lines[0].results[0], ("bm25", "ndcg@10"))
    axes.axhline(bm25, color="grey", linestyle=":", label="BM25")
    axes.set_xscale("log")
    axes.set_xlabel("FLOPS (tokens shared by a query and a document, on average)")
    axes.set_ylabel("nDCG@10, average of the collections")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})
