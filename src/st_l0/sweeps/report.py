"""What a sweep found: tables in Markdown and the curves of quality against cost."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from st_l0.errors import InputError, require
from st_l0.reports.page import check_page, write_page
from st_l0.reports.systems import BM25, System, collections_of, group, measured
from st_l0.sweeps.sweep import RESULT, Sweep, plan_runs
from st_l0.utils.files import FileKind, check_file, replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.terminal import printable

_PLOT = "![nDCG@10 against FLOPS]"
_MARKUP = re.compile(r"[\\`|*\[\]~$]|(?<!\w)_|_(?!\w)")  # an underscore within a word is none


class _Line(NamedTuple):
    """The runs of one variant and one point, seeds apart."""

    system: System
    results: list[dict[str, Any]]

    def mean(self, metric: str, collection: str | None = None) -> float:
        return self.system.mean(metric, collection) or 0.0

    @property
    def variant(self) -> str:
        return self.system.series


def write_report(sweep: Sweep, results: Sequence[dict[str, Any]], folder: str | Path, name: str) -> None:
    """Write ``NAME.html`` and its figures, see `st_l0.reports.page`, and ``NAME.md``, a table of all results.

    A second table compares the variants at equal cost: their nDCG@10 between two of their points, on a
    straight line over log FLOPS, at steps of the square root of 2 and where a variant has its only point.

    Args:
        sweep: The sweep.
        results: What `st_l0.sweeps.sweep.run_sweep` returned, at least one.
        folder: Where to write.
        name: What the files are called.

    Raises:
        InputError: there is no result, or `check_report` refuses a file.
        MissingExtraError: the extra ``report`` is not installed.
    """
    if not results:
        raise InputError(f"{sweep.output}: no run is done; there is nothing to report")
    require("matplotlib", "report")
    systems, lines = _read(sweep, results)
    folder = check_report(folder, name)
    missing = len(plan_runs(sweep)) - len(results)
    # Queries are explained at the end only: that loads models.
    page = folder / f"{name}.html"
    write_page(systems, page, title=name, note=sweep.note or "", queries=0 if missing else 5)
    text = _table(sweep, systems, lines, f"{name}.ndcg_flops.svg", missing)
    with replace_file(folder / f"{name}.md", _TABLE) as new:
        new.write_text(text, encoding="utf-8")


def check_report(folder: str | Path, name: str) -> Path:
    """Refuse what `write_report` would refuse to replace; for the start, before any run.

    Returns:
        The folder.

    Raises:
        InputError: a file of this name is no earlier report, and would be lost; or nothing can be written
            there.
    """
    folder = local_path(folder)
    table = folder / f"{name}.md"
    check_file(table, _TABLE)
    check_page(folder / f"{name}.html")
    return folder


_TABLE = FileKind("a report of st-l0 sweep", lambda path: _PLOT in path.read_text(encoding="utf-8"))


def _read(sweep: Sweep, results: Sequence[dict[str, Any]]) -> tuple[list[System], list[_Line]]:
    """The systems of the results, BM25 first, and with those of a variant its lines, dearest first."""
    runs = {_key(run.variant, run.point): run for run in plan_runs(sweep)}
    found = []
    for result in results:
        run = runs.get(_key(result["variant"], result["point"]))
        folder = Path(sweep.output) if run is None else run.folder
        found.append(measured(result, folder / RESULT, None if run is None else run.recipe))
    systems = group(found)
    of = {id(one): result for one, result in zip(found, results, strict=True)}
    lines = [_Line(one, [of[id(run)] for run in one.runs]) for one in systems if one.key == "model"]
    variants = list(dict.fromkeys(line.variant for line in lines))
    lines.sort(key=lambda line: (variants.index(line.variant), -line.mean(_COST)))
    return [one for one in systems if one.key != "model"] + [line.system for line in lines], lines


def _key(variant: str, point: dict[str, Any]) -> str:
    return json.dumps([variant, point])


_COST = "flops"
_QUALITY = "ndcg@10"


def _table(sweep: Sweep, systems: list[System], lines: list[_Line], plot: str, missing: int) -> str:
    names = collections_of(systems)
    if len(names) == 1:  # which is its own average
        names = []
    head = ["variant", "varied", "seeds", "nDCG@10", "±", *names, "FLOPS", "dims", "steps", "minutes"]
    rows = [head, ["---"] * 3 + ["---:"] * (len(head) - 3)]
    for bm25 in (one for one in systems if one.name == BM25):
        quality = [f"{bm25.mean(_QUALITY, name) or 0:.3f}" for name in (None, *names)]
        rows.append(["BM25", "", "", quality[0], "", *quality[1:], "", "", "", ""])
    for line in lines:
        seconds = [result["seconds"]["training"] for result in line.results]
        minutes = [one / 60 for one in seconds if one is not None]  # not known where it was interrupted
        point = {key: value for key, value in line.results[0]["point"].items() if key != "seed"}
        rows.append(
            [
                line.variant,
                ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in point.items()),
                " ".join(str(result["seed"]) for result in line.results),
                f"{line.mean(_QUALITY):.3f}",
                f"{line.system.spread(_QUALITY) / 2:.3f}" if len(line.results) > 1 else "",
                *(f"{line.mean(_QUALITY, name):.3f}" for name in names),
                f"{line.mean(_COST):.2f}",
                f"{line.mean('document_active_dims'):.0f}",
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
            f"{_PLOT}({quote(plot)})",
            "",
            *map(_row, rows),
            "",
            *_at_equal_cost(lines),
        ]
    )


def _at_equal_cost(lines: list[_Line]) -> list[str]:
    curves: dict[str, tuple[list[float], list[float]]] = {}  # log2 of the cost, rising, and quality
    for line in sorted(lines, key=lambda line: line.mean(_COST)):
        if line.mean(_COST) > 0:
            costs, quality = curves.setdefault(line.variant, ([], []))
            costs.append(math.log2(line.mean(_COST)))
            quality.append(line.mean(_QUALITY))
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
