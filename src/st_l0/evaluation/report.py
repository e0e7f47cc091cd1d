"""Reports for people (tables) and for programs (JSON)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from st_l0.errors import InputError
from st_l0.evaluation.measure import SYSTEMS, EvaluationReport, SystemResults
from st_l0.evaluation.metrics import PROTOCOL
from st_l0.evaluation.trec import RUN, write_run
from st_l0.utils.files import FileKind, check_file, replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.terminal import cell

_Systems = dict[str, dict[str, float]]
_TITLES = {"bm25": "BM25", "model": "model", "model_bm25": "model + BM25"}

# Key in the report, column title, format; a column shows up if any system was measured on it. The first
# two and recall, whose depth the report names, are qualities: of those the best is bold.
_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("ndcg@10", "nDCG@10", "{:.3f}".format),
    ("mrr@10", "MRR@10", "{:.3f}".format),
    ("p_value", "p", "{:.3f}".format),
    ("flops", "FLOPS", "{:.2f}".format),
    ("word_flops", "word\nFLOPS", "{:.2f}".format),
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
        ``{"collections": {name: report}, "average": {system: {…}}}``, where an average is the
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


def write_json(
    reports: Sequence[EvaluationReport], path: str | Path, *, made_with: Mapping[str, Any] | None = None
) -> None:
    """Write reports as JSON, in the form that `summarise` gives; ``path`` is replaced as a whole.

    Beside them stands the ``protocol``, see `st_l0.evaluation.metrics.PROTOCOL`.

    Args:
        reports: At least one, each of another collection.
        path: The file.
        made_with: ``model``, the folders ``data`` and the ``split`` that were measured, so that
            ``st-l0 report`` can explain the numbers.

    Raises:
        InputError: there is no report, or two are of one collection; ``path`` is something else than such a
            file, which would be lost.
    """
    found = summarise(reports) | {"protocol": PROTOCOL}
    found |= {} if made_with is None else {"made_with": dict(made_with)}
    text = json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with replace_file(path, REPORT) as new:
        new.write_text(text, encoding="utf-8")


def write_results(results: Mapping[str, Mapping[str, SystemResults]], path: str | Path) -> None:
    """Write what the numbers of a JSON file are the means of, beside it; each file is replaced as a whole.

    For ``evaluation.json``: ``evaluation.per_query.json`` holds the quality of each query, as
    ``{collection: {system: {query: {"ndcg@10": …, "mrr@10": …, "recall@<k>": …}}}}``, and
    ``evaluation.<collection>.<system>.run`` what was found, see `st_l0.evaluation.trec.write_run`. Run files
    that an earlier report wrote here and this one does not have are removed.

    Args:
        results: Name of a collection → what `evaluate` gave as its ``results``.
        path: The JSON file that `write_json` writes.

    Raises:
        InputError: `check_results` refuses a file, or `write_run` a run.
    """
    check_results(path, list(results))
    path = local_path(path)
    per_query = {
        name: {system: found.per_query for system, found in systems.items()}
        for name, systems in results.items()
    }
    parts = _beside(path, "per_query.json")
    stale = _earlier_runs(path, parts)
    with replace_file(parts, _PER_QUERY) as new:
        new.write_text(json.dumps(per_query, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for name, systems in results.items():
        for system, found in systems.items():
            run = _beside(path, f"{name}.{system}.run")
            write_run(found.run, run, system)
            stale.discard(run)
    for run in stale:
        run.unlink(missing_ok=True)


def check_results(path: str | Path, collections: Sequence[str], *, inputs: Sequence[str | Path] = ()) -> None:
    """Refuse what `write_json` and `write_results` would refuse; for the start, before any work is done.

    Args:
        path: The JSON file.
        collections: Names of the collections.
        inputs: Files that must not be replaced.

    Raises:
        InputError: a collection's name is no file name; there is something else than an earlier report, which
            would be lost; or nothing can be written there.
    """
    stray = next((name for name in collections if Path(name).name != name), None)
    if stray is not None:
        raise InputError(f"{path}: collection {stray!r:.40} cannot be part of a file name; rename it")
    path = local_path(path)
    check_file(path, REPORT, inputs=inputs)
    check_file(_beside(path, "per_query.json"), _PER_QUERY, inputs=inputs)
    for name in collections:
        for system in SYSTEMS:
            check_file(_beside(path, f"{name}.{system}.run"), RUN, inputs=inputs)


def _beside(path: Path, name: str) -> Path:
    return path.with_name(f"{path.stem}.{name}")


def _is_report(path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    # Of one collection, it once was that one's report alone.
    return any(keys <= set(found) for keys in ({"collections", "average"}, {"collection", "model"}))


def _is_per_query(path: Path) -> bool:
    found = json.loads(path.read_text(encoding="utf-8"))
    return all(systems.keys() & set(SYSTEMS) for systems in found.values())


REPORT = FileKind("a report of st-l0 evaluate", _is_report)
_PER_QUERY = FileKind("of a report of st-l0 evaluate", _is_per_query)


def _earlier_runs(path: Path, parts: Path) -> set[Path]:
    """The run files that go with an earlier report of this name."""
    try:
        names = [str(name) for name in json.loads(parts.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return set()
    return {
        _beside(path, f"{name}.{system}.run")
        for name in names
        if Path(name).name == name
        for system in SYSTEMS
    }


def render(reports: Sequence[EvaluationReport]) -> Table:
    """A table for ``rich``, one row a system and collection; the best quality of a collection is bold.

    The p beside a sum is that of its difference to the model alone.

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
            name = _TITLES[system]
            if "bm25_weight" in values:
                name = f"model + {values['bm25_weight']:.2g} BM25"
            without = values.get("without_hits", 0)
            note = f" (no hits: {without:.0%})" if without > 0.5 else ""
            table.add_row(cell(title), name + note, *cells)
            title = ""
    return table


def own_documents_note(reports: Sequence[EvaluationReport]) -> str | None:
    """A sentence on the queries that are documents themselves, None where there are none."""
    counts = {report["collection"]: report.get("own_documents", 0) for report in reports}
    found = ", ".join(f"{count} of {name}" for name, count in counts.items() if count)
    return (
        f"A query's own document is no hit, for the model and for BM25: {found} queries." if found else None
    )


def protocol_note() -> str:
    """A sentence on what numbers of other tools may differ in."""
    return "Metrics as trec_eval has them; equal scores by falling id; queries without hits count 0."


def bm25_note(reports: Iterable[Mapping[str, Any]]) -> str | None:
    """A sentence on which BM25 was measured, None where none was."""
    found = dict.fromkeys(report["bm25_variant"] for report in reports if "bm25_variant" in report)
    return f"BM25: {'; '.join(found)}." if found else None


def _cell(
    key: str, form: Callable[[float], str], values: dict[str, float], systems: _Systems, graded: bool
) -> str:
    if key not in values:
        return "–"
    text = form(values[key])
    best = max(other[key] for other in systems.values() if key in other)
    return f"[bold]{text}[/bold]" if graded and values[key] == best else text


def _systems(report: EvaluationReport) -> _Systems:
    return {system: report[system] for system in SYSTEMS if system in report}  # type: ignore[literal-required]


def _average(reports: Sequence[_Systems]) -> _Systems:
    return {
        system: {
            key: sum(report[system][key] for report in reports) / len(reports)
            for key in reports[0][system]
            if key != "p_value"  # which has no mean
            and all(key in report[system] for report in reports)
        }
        for system in reports[0]
        if all(system in report for report in reports)
    }
