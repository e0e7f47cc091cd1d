"""The page of a report: one HTML file that needs nothing else, its numbers as JSON, its figures as files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from st_l0.errors import InputError
from st_l0.evaluation.report import bm25_note, protocol_note
from st_l0.evaluation.significance import PERMUTATIONS, holm, randomisation_test
from st_l0.reports.figures import QUALITY, draw
from st_l0.reports.queries import compare
from st_l0.reports.systems import System, collections_of
from st_l0.utils.files import FileKind, check_file, replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.terminal import printable

_MADE_BY = '<meta name="generator" content="st-l0 report">'
_PAGE = FileKind("a page of st-l0 report", lambda path: _MADE_BY in path.read_text(encoding="utf-8"))
_NUMBERS = FileKind(
    "the numbers of a page of st-l0 report", lambda path: "systems" in json.loads(path.read_text("utf-8"))
)
_SHOWN = 3  # systems whose queries are shown: the best ones

# Key, head and digits of the columns of the first table.
_COLUMNS = (
    ("ndcg@10", "nDCG@10", 3),
    ("mrr@10", "MRR@10", 3),
    ("recall@", "", 3),
    ("flops", "FLOPS", 2),
    ("query_active_dims", "dims of a query", 1),
    ("document_active_dims", "dims of a document", 0),
)


def write_page(
    systems: Sequence[System],
    output: str | Path,
    *,
    title: str,
    note: str = "",
    baseline: str | None = None,
    queries: int = 5,
) -> Path:
    """Write ``report.html``, its numbers as ``report.json``, and figures as ``.svg`` and ``.png``, beside it.

    Args:
        systems: What is compared, see `st_l0.reports.systems`.
        output: The page.
        title: What stands above it.
        note: What is said below that.
        baseline: Name of the system that the others are compared with; ``None``: the first one.
        queries: Queries to show that a system wins, and that it loses, in each collection.

    Returns:
        The page.

    Raises:
        InputError: There is nothing to show, no system of the name of the baseline, or `check_page` refuses.
        MissingExtraError: The extra ``report`` is not installed.
    """
    import jinja2

    page = check_page(output)
    if not any(one.key == "model" for one in systems):
        raise InputError("no system was measured; there is nothing to report")
    reference = _find(systems, baseline)
    figures = draw(systems)
    numbers = gather(systems, reference)
    compared = [one for one in systems if one is not reference and one.key == "model"]
    best = sorted(compared, key=lambda one: -(one.mean(QUALITY) or 0.0))[:_SHOWN]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["line"] = printable
    reports = [
        report for one in systems for run in one.runs for report in run.quality["collections"].values()
    ]
    text = environment.from_string(files(__package__).joinpath("page.html").read_text("utf-8")).render(
        title=title,
        note=note,
        protocol=[one for one in (protocol_note(), bm25_note(reports)) if one],
        version=version("st-l0"),
        figures=figures,
        columns=[(key, head, digits) for key, head, digits in _columns(systems)],
        numbers=numbers,
        baseline=reference.name,
        permutations=PERMUTATIONS,
        tested=any(test is not None for row in numbers["systems"].values() for test in row["tests"].values()),
        recalls=[key for key, _, _ in _columns(systems) if key.startswith("recall@")],
        compared=[
            (one.name, found)
            for one in best
            if (found := compare(one, reference, numbers["collections"], QUALITY, queries))
        ],
    )
    with replace_file(page, _PAGE) as new:
        new.write_text(text, encoding="utf-8")
    with replace_file(page.with_suffix(".json"), _NUMBERS) as new:
        new.write_text(json.dumps(numbers, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for figure in figures:
        with replace_file(page.with_name(f"{page.stem}.{figure.name}.svg")) as new:
            new.write_text(figure.svg, encoding="utf-8")
        with replace_file(page.with_name(f"{page.stem}.{figure.name}.png")) as new:
            new.write_bytes(figure.png)
    return page


def check_page(output: str | Path) -> Path:
    """Refuse what `write_page` would refuse to replace; for the start.

    Returns:
        The page.

    Raises:
        InputError: It is something else than an earlier page, or nothing can be written there.
    """
    page = local_path(output)
    if page.suffix != ".html":
        raise InputError(f"{output}: is a page, give it a name that ends with .html")
    check_file(page, _PAGE)
    check_file(page.with_suffix(".json"), _NUMBERS)
    return page


def gather(systems: Sequence[System], reference: System) -> dict[str, Any]:
    """All numbers of a page.

    Returns:
        ``{"baseline", "collections", "systems": {name: {"settings", "average", "collections", "tests"}}}``;
        a test, of a collection or of ``"average"``, is ``{"difference", "p", "p_corrected"}``, or null where
        no numbers of single queries were kept, or not of the same ones.
    """
    names = collections_of(systems)
    tests = {
        one.name: {name: _test(one, reference, within) for name, within in _parts(names)}
        for one in systems
        if one is not reference
    }
    done = [test for row in tests.values() for test in row.values() if test is not None]
    for test, corrected in zip(done, holm([test["p"] for test in done]), strict=True):
        test["p_corrected"] = corrected
    return {
        "baseline": reference.name,
        "collections": names,
        "systems": {
            one.name: {
                "settings": one.settings,
                "runs": len(one.runs),
                "average": _values(one, None),
                "collections": {name: _values(one, name) for name in names},
                "tests": tests.get(one.name, dict.fromkeys(dict(_parts(names)))),
            }
            for one in systems
        },
    }


def _parts(names: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [*((name, [name]) for name in names), *([("average", list(names))] if len(names) > 1 else [])]


def _test(one: System, reference: System, names: Sequence[str]) -> dict[str, float] | None:
    rows = []
    for name in names:
        ours, theirs = one.per_query(QUALITY, name), reference.per_query(QUALITY, name)
        if not ours or ours.keys() != theirs.keys():
            return None
        rows.append([ours[query] - theirs[query] for query in ours])
    difference = sum(sum(row) / len(row) for row in rows) / len(rows)
    return {"difference": difference, "p": randomisation_test(rows)}


def _values(one: System, collection: str | None) -> dict[str, float]:
    qualities = [run.quality for run in one.runs]
    runs = [
        quality["average"] if collection is None else quality["collections"].get(collection, {})
        for quality in qualities
    ]
    keys = dict.fromkeys(key for part in runs for key in part.get(one.key, {}))
    return {key: value for key in keys if (value := one.mean(key, collection)) is not None}


def _columns(systems: Sequence[System]) -> list[tuple[str, str, int]]:
    """The columns that any system was measured on; recall at every depth."""
    keys = dict.fromkeys(key for one in systems for key in _values(one, None))
    found = []
    for key, head, digits in _COLUMNS:
        if key == "recall@":
            found += [(name, f"R@{name[7:]}", digits) for name in keys if name.startswith(key)]
        elif key in keys:
            found.append((key, head, digits))
    return found


def _find(systems: Sequence[System], name: str | None) -> System:
    if name is None:
        return systems[0]
    found = next((one for one in systems if one.name == name), None)
    if found is None:
        known = ", ".join(one.name for one in systems)
        raise InputError(f"--baseline {name}: no such system; there are {known}")
    return found
