"""Many trainings that differ in a few settings, each measured on the same collections.

A sweep is a YAML file over `Sweep`: recipes, the values to vary, and the collections. Every run is a training
of its own under ``output``; a run that is done is not done again, and one that was interrupted goes on.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from st_l0.errors import InputError
from st_l0.training.recipe import Recipe, load_recipe
from st_l0.training.recipe_paths import local_names
from st_l0.training.settings import Section, SettingError, convert, load
from st_l0.training.yaml_text import is_secret
from st_l0.utils.files import replace_file
from st_l0.utils.reading import read_json
from st_l0.utils.resumable import hold_output
from st_l0.utils.terminal import printable

RESULT, _SETTINGS = "result.json", "settings.yaml"
_MOST_RUNS = 1000  # of a variant: all recipes are read before the first one is trained
_REMOVE = "remove it, or give the sweep another output"


@dataclass(frozen=True)
class Variant(Section):
    """A recipe and what to vary in it.

    Attributes:
        recipe: Path of the recipe.
        set: Keys of the recipe to values that replace its own, in all runs.
        grid: Keys of the recipe to lists of values; a run is made of every combination.
    """

    recipe: str
    set: dict[str, Any] = field(default_factory=dict)
    grid: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        for key, values in self.grid.items():
            if not isinstance(values, list) or not values:
                raise SettingError("must be a list of at least one value", ("grid", key))
            if is_secret(str(key).rpartition(".")[2]):
                raise SettingError("is a secret, and runs are named for what varies", ("grid", key))
        runs = math.prod(map(len, self.grid.values()))
        if runs > _MOST_RUNS:
            raise SettingError(f"makes {runs:,} runs: {_MOST_RUNS:,} are the most", ("grid",))

    @property
    def points(self) -> list[dict[str, Any]]:
        """Every combination; the last key varies fastest."""
        return [
            dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())
        ]


@dataclass(frozen=True)
class Sweep(Section):
    """Variants of a training and what measures them.

    Attributes:
        output: Folder for the runs.
        collections: Folders of test collections, as `st_l0.data.read_collection` takes them.
        variants: Name to `Variant`.
        set: Keys of the recipes to values, in all runs; a variant's own come after them.
        dtype: Precision of the transformer in the measurements, see
            `st_l0.encoder.precision.encoder_precision`.
        note: What a report says beside the results, such as what was scaled down.
    """

    output: str = field(metadata={"then": local_names})
    collections: tuple[str, ...] = field(metadata={"then": local_names})
    variants: dict[str, Any]
    set: dict[str, Any] = field(default_factory=dict)
    dtype: Literal["float32", "bfloat16", "int8"] = "float32"
    note: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        built = {}
        for key, variant in self.variants.items():
            name = str(key)
            if not name.replace("_", "").replace("-", "").isalnum():
                raise SettingError(
                    "is no name for a folder: take letters, digits, - and _", ("variants", name)
                )
            try:
                built[name] = convert(variant, Variant)
            except SettingError as error:
                raise error.below(name).below("variants") from None
        if not built:
            raise SettingError("must name at least one variant", ("variants",))
        object.__setattr__(self, "variants", built)


class Run(NamedTuple):
    """One training of a sweep.

    Attributes:
        variant: Its name.
        point: What was varied: keys of the recipe to values.
        recipe: The whole recipe; its output is the folder of the run.
    """

    variant: str
    point: dict[str, Any]
    recipe: Recipe

    @property
    def folder(self) -> Path:
        """Where the run leaves its model and its result."""
        return Path(self.recipe.output)


def load_sweep(path: str | Path, overrides: Sequence[str] = ()) -> Sweep:
    """Read and check a sweep.

    Args:
        path: A YAML file with the keys of `Sweep`. Relative paths are relative to the current directory.
        overrides: ``"key.path=value"`` strings, as in `st_l0.training.recipe.load_recipe`.

    Raises:
        InputError: one line that says where and what is wrong.
    """
    return load(Sweep, path, overrides)


def plan_runs(sweep: Sweep) -> list[Run]:
    """All runs of a sweep: the first point of each variant, then the second of each, and so on.

    So where a grid begins with the seed, a sweep that is stopped half way has seen all of its variants.

    Raises:
        InputError: a recipe cannot be read, or a value does not fit; two runs have one name.
    """
    rows = []
    for name, variant in sweep.variants.items():
        rows.append([_run(sweep, name, variant, point) for point in variant.points])
    runs = [run for row in itertools.zip_longest(*rows) for run in row if run is not None]
    names = Counter(run.recipe.output for run in runs)
    twice, count = names.most_common(1)[0]
    if count > 1:
        raise InputError(f"{twice}: two runs of the sweep have this name; vary a value by one spelling")
    return runs


def run_sweep(
    sweep: Sweep,
    *,
    progress: bool = True,
    done: Callable[[list[dict[str, Any]]], None] | None = None,
) -> list[dict[str, Any]]:
    """Train and measure what is not there yet.

    Every run leaves in its folder what `st_l0.training.train` leaves, ``settings.yaml`` (the recipe that it
    was begun with) and ``result.json``: ``variant``, ``point``, ``seed``, ``steps``, ``seconds`` of training
    (null where it was interrupted) and evaluation, ``machine``, ``dtype``, ``collections`` and ``quality``,
    which is as `st_l0.evaluation.report.summarise` gives it. Beside it lie the numbers of each query and the
    runs, see `st_l0.evaluation.write_results`.

    Args:
        sweep: What to run.
        progress: Show progress bars, and a line for each run.
        done: Is given all results that there are, at the start if there are any, and after each run.

    Returns:
        The results of all runs, in the order of `plan_runs`.

    Raises:
        InputError: a value, data or model is unusable, a folder holds the result of other settings, or
            another process works on the sweep.
    """
    with hold_output(Path(sweep.output), "is sweeping there"):
        return _run_all(sweep, progress, done)


def _run_all(
    sweep: Sweep, progress: bool, done: Callable[[list[dict[str, Any]]], None] | None
) -> list[dict[str, Any]]:
    from st_l0.data import read_collection

    runs = plan_runs(sweep)
    todo = [run for run in runs if not _is_done(sweep, run)]
    if done is not None and len(todo) < len(runs):
        done(read_results(sweep))
    collections = [read_collection(folder) for folder in sweep.collections] if todo else []
    for number, run in enumerate(todo, start=1):
        start = time.perf_counter()
        result = _execute(sweep, run, collections, progress)
        with replace_file(run.folder / RESULT) as new:
            new.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if progress:
            average = result["quality"]["average"]["model"]
            print(
                f"{number}/{len(todo)} {printable(run.folder)}: nDCG@10 {average['ndcg@10']:.3f}, "
                f"FLOPS {average['flops']:.2f}, {average['document_active_dims']:.0f} dims, "
                f"{time.perf_counter() - start:.0f} s",
                flush=True,
            )
        if done is not None:
            done(read_results(sweep))
    return read_results(sweep)


def read_results(sweep: Sweep) -> list[dict[str, Any]]:
    """The results that are there, in the order of `plan_runs`."""
    files = [run.folder / RESULT for run in plan_runs(sweep) if _is_done(sweep, run)]
    return [read_json(file, _REMOVE) for file in files]


def _run(sweep: Sweep, name: str, variant: Variant, point: dict[str, Any]) -> Run:
    values = ",".join(f"{key.rpartition('.')[2]}={_spell(value)}" for key, value in point.items())
    folder = Path(sweep.output) / name / (values or "run")
    # One after the other, not merged: what comes later may be a part of what comes before.
    settings = [*sweep.set.items(), *variant.set.items(), *point.items(), ("output", str(folder))]
    overrides = [f"{key}={json.dumps(value)}" for key, value in settings]
    try:
        recipe = load_recipe(variant.recipe, overrides)
    except InputError as error:
        raise InputError(f"variant {name}: {error}") from error
    weight = "loss.document_regularizer_weight"
    if recipe.loss.target is not None and len(variant.grid.get(weight, ())) > 1:
        raise InputError(
            f"variant {name}: grid varies {weight}, which loss.{recipe.loss.target[0]} moves: vary the target"
        )
    return Run(name, point, recipe)


def _spell(value: Any) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return "".join(letter if letter.isalnum() or letter in ".-+" else "_" for letter in text)


def _is_done(sweep: Sweep, run: Run) -> bool:
    """Whether there is a result; what there is must be of exactly these settings."""
    settings, result = run.folder / _SETTINGS, run.folder / RESULT
    if settings.exists() and not _same_recipe(settings, run.recipe):
        raise InputError(f"{run.folder}: was begun with other settings; {_REMOVE}")
    if not result.exists():
        return False
    found = read_json(result, _REMOVE)
    if (found.get("dtype"), found.get("collections")) != (sweep.dtype, list(sweep.collections)):
        raise InputError(f"{run.folder}: was measured on other collections or in another dtype; {_REMOVE}")
    return True


def _same_recipe(settings: Path, recipe: Recipe) -> bool:
    """Whether a file holds this recipe; a key that it lacks, since it is older, has its default."""
    text = recipe.to_yaml()  # in which no secret is compared
    if settings.read_bytes() == text.encode():  # spares the parsing, nearly always
        return True
    try:
        return load_recipe(settings).to_yaml() == text
    except InputError:
        return False


def _execute(sweep: Sweep, run: Run, collections: Sequence[Any], progress: bool) -> dict[str, Any]:
    from st_l0.encoder.precision import encoder_precision
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.evaluation import evaluate, write_results
    from st_l0.evaluation.report import summarise
    from st_l0.training.checkpoints import last_complete_checkpoint
    from st_l0.training.train_model import train

    fresh = not (run.folder / _SETTINGS).exists()
    with replace_file(run.folder / _SETTINGS) as new:
        new.write_text(run.recipe.to_yaml(), encoding="utf-8")
    start = time.perf_counter()
    if not (run.folder / "recipe.yaml").exists():  # the last that a training writes
        train(run.recipe, resume=last_complete_checkpoint(run.folder / "checkpoints") is not None)
    between = time.perf_counter()
    model = SparseEncoder.from_pretrained(
        run.folder / "model", trust_remote_code=run.recipe.model.trust_remote_code
    )
    with encoder_precision(model, sweep.dtype):
        found: dict[str, dict[str, Any]] = {one.name: {} for one in collections}
        reports = [evaluate(model, one, progress=progress, results=found[one.name]) for one in collections]
    write_results(found, run.folder / RESULT)
    return {
        "variant": run.variant,
        "point": run.point,
        "seed": run.recipe.seed,
        "steps": run.recipe.training.get("max_steps"),
        "seconds": {
            "training": between - start if fresh else None,
            "evaluation": time.perf_counter() - between,
        },
        "machine": describe_machine(),
        "dtype": sweep.dtype,
        "collections": list(sweep.collections),
        "quality": summarise(reports),
    }


def describe_machine() -> str:
    """Processor or GPU, and the versions that numbers depend on."""
    import torch
    import transformers

    if torch.cuda.is_available():
        device = torch.cuda.get_device_name()
    else:
        device = f"{os.cpu_count()} CPU cores ({platform.machine()}), {torch.get_num_threads()} threads"
    return f"{device}; torch {torch.__version__}, transformers {transformers.__version__}"
