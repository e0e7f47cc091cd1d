"""The systems that a report compares, read from what evaluations and sweeps have left."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, cast

from st_l0.errors import InputError
from st_l0.evaluation.measure import EvaluationReport
from st_l0.evaluation.report import summarise
from st_l0.training.recipe import Recipe, load_recipe
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json

BM25 = "BM25"
_MEND = "give the JSON file that st-l0 evaluate --output wrote, the folder that holds it, or that of a sweep"
_RECIPES = ("recipe.yaml", "settings.yaml")  # as a training leaves it; as a sweep notes it before
# What is varied along a curve of the papers, and their name for it; all else has to be equal for a curve.
VARIED = {
    "loss.document_regularizer_weight": "λ",
    "loss.threshold": "t",
    "loss.extra_logs": "k",
    "loss.top_k": "top k",
    "loss.target_flops": "target FLOPS",
    "loss.target_active_dims": "target dims",
}
_NO_MATTER = ("seed", "output", "evaluation")


@dataclass(frozen=True)
class Measured:
    """One evaluation.

    Attributes:
        name: What it is called.
        series: Which curve it is on.
        settings: Our name of a varied setting → its value, such as ``{"λ": 0.01, "t": 150}``.
        quality: As `st_l0.evaluation.summarise` gives it.
        per_query: Collection → system → query → metric → value; empty where it was not kept.
        file: Where it was read from; run files lie beside it.
        model: Folder or name of the model; ``None`` where that is not known.
        data: The collections that were searched; of equal order, or empty.
        split: Which judgements were taken.
    """

    name: str
    series: str
    settings: dict[str, Any]
    quality: dict[str, Any]
    per_query: dict[str, Any]
    file: Path
    model: str | None = None
    data: tuple[str, ...] = ()
    split: str = "test"


@dataclass(frozen=True)
class System:
    """One row of the tables: evaluations that differ in the seed only, alone or with words, or BM25.

    Attributes:
        name: What it is called.
        series: Which curve it is on.
        settings: See `Measured`.
        runs: The evaluations.
        key: ``"model"``, ``"bm25"``, or ``"model_bm25"`` for the sum of both: which part of them.
    """

    name: str
    series: str
    settings: dict[str, Any]
    runs: list[Measured] = field(default_factory=list)
    key: str = "model"

    def values(self, metric: str, collection: str | None = None) -> list[float]:
        """A number of each evaluation that has it: of a collection, or of the average."""
        found = []
        for run in self.runs:
            part = run.quality["average"]
            if collection is not None:
                part = run.quality["collections"].get(collection, {})
            value = part.get(self.key, {}).get(metric)
            if value is not None:
                found.append(float(value))
        return found

    def mean(self, metric: str, collection: str | None = None) -> float | None:
        """Their mean; ``None`` where none has it."""
        values = self.values(metric, collection)
        return fmean(values) if values else None

    def spread(self, metric: str) -> float:
        """Distance between the best and the worst of the averages."""
        values = self.values(metric)
        return max(values) - min(values) if values else 0.0

    def per_query(self, metric: str, collection: str) -> dict[str, float]:
        """Query → mean over the evaluations; empty where one of them has not kept it."""
        rows = [run.per_query.get(collection, {}).get(self.key, {}) for run in self.runs]
        if not all(rows):
            return {}
        shared = [query for query in rows[0] if all(metric in row.get(query, {}) for row in rows)]
        return {query: fmean(row[query][metric] for row in rows) for query in shared}


def read_systems(places: Sequence[str | Path]) -> list[System]:
    """Read what was measured, BM25 first where it was.

    Args:
        places: JSON files of ``st-l0 evaluate``, folders with ``evaluation.json``, folders of sweeps or of
            one of their runs.

    Raises:
        InputError: Nothing was measured there, or a file is damaged.
    """
    found = [one for place in places for one in _read(local_path(place))]
    return group(found)


def group(found: Iterable[Measured]) -> list[System]:
    """The systems of evaluations: those of one curve and setting are one."""
    systems: dict[str, System] = {}
    runs = list(found)
    for run in runs:
        key = json.dumps([run.series, run.settings, list(run.quality["collections"])], default=str)
        systems.setdefault(key, System(run.name, run.series, run.settings)).runs.append(run)
    with_bm25 = [run for run in runs if "bm25" in run.quality["average"]]
    bm25 = [System(BM25, BM25, {}, with_bm25[:1], "bm25")] if with_bm25 else []
    both = [
        System(f"{one.name} + BM25", f"{one.series} + BM25", one.settings, one.runs, "model_bm25")
        for one in systems.values()
        if all("model_bm25" in run.quality["average"] for run in one.runs)
    ]
    return bm25 + list(systems.values()) + both


def collections_of(systems: Sequence[System]) -> list[str]:
    """Names of all collections, in the order of the runs."""
    runs = [run for one in systems for run in one.runs]
    return list(dict.fromkeys(name for run in runs for name in run.quality["collections"]))


def measured(result: Mapping[str, Any], file: Path, recipe: Recipe | None) -> Measured:
    """One run of a sweep.

    Args:
        result: What it left, see `st_l0.sweeps.sweep.run_sweep`.
        file: Where that is.
        recipe: What it was trained by; ``None`` where that is not known.
    """
    quality = result["quality"]
    if "collections" not in quality:  # of one collection, it once was that one's report alone
        quality = summarise([cast(EvaluationReport, quality)])
    varied = {VARIED.get(key, key.rpartition(".")[2]): value for key, value in result["point"].items()}
    settings = ({} if recipe is None else settings_of(recipe)) | varied
    settings.pop("seed", None)
    spelt = ", ".join(f"{name} {spell(value)}" for name, value in settings.items())
    return Measured(
        name=f"{result['variant']}, {spelt}" if spelt else result["variant"],
        series=result["variant"],
        settings=settings,
        quality=quality,
        per_query=_per_query(file),
        file=file,
        model=str(file.parent / "model"),
        data=tuple(result.get("collections", ())),
    )


def spell(value: Any) -> str:
    """A value of a setting, for people."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_of(recipe: Recipe) -> dict[str, Any]:
    """What is varied, of a recipe: `VARIED` that are set."""
    found = {name: getattr(recipe.loss, key.partition(".")[2]) for key, name in VARIED.items()}
    return {name: value for name, value in found.items() if value not in (None, 0) or name == "λ"}


def _read(place: Path) -> list[Measured]:
    if place.is_dir():
        files = [file for name in ("evaluation.json", "result.json") for file in sorted(place.rglob(name))]
    else:
        files = [place]
    if not files:
        raise InputError(f"{place}: holds no evaluation.json and no result.json; {_MEND}")
    return [_read_file(file, place) for file in files]


def _read_file(file: Path, place: Path) -> Measured:
    found = read_json(file, _MEND)
    known = found if isinstance(found, dict) else {}
    recipe = _recipe(file.parent)
    settings = {} if recipe is None else settings_of(recipe)
    if {"variant", "point", "quality"} <= known.keys():
        return measured(known, file, recipe)
    if {"collection", "model"} <= known.keys():  # of version 0.1
        known = summarise([cast(EvaluationReport, known)])
    if not {"collections", "average"} <= known.keys():
        raise InputError(f"{file}: is no evaluation; {_MEND}")
    model = known.get("made_with", {})
    folder = file.parent / "model"
    return Measured(
        name=file.parent.name if file.stem == "evaluation" else file.stem,
        series=_series(recipe, file),
        settings=settings,
        quality={key: known[key] for key in ("collections", "average")},
        per_query=_per_query(file),
        file=file,
        model=model.get("model") or (str(folder) if folder.is_dir() else None),
        data=tuple(model.get("data", ())),
        split=model.get("split", "test"),
    )


def _recipe(folder: Path) -> Recipe | None:
    file = next((folder / name for name in _RECIPES if (folder / name).is_file()), None)
    return None if file is None else load_recipe(file)


def _series(recipe: Recipe | None, file: Path) -> str:
    """A curve: trainings that differ in nothing but what is varied along it."""
    if recipe is None:
        return str(file)
    import yaml

    plain = yaml.safe_load(recipe.to_yaml())
    for key in VARIED:
        section, _, name = key.partition(".")
        plain[section].pop(name, None)
    return json.dumps({name: value for name, value in plain.items() if name not in _NO_MATTER}, default=str)


def _per_query(file: Path) -> dict[str, Any]:
    beside = file.with_name(f"{file.stem}.per_query.json")
    return dict(read_json(beside, "evaluate again")) if beside.is_file() else {}
