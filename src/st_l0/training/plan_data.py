"""What a dry run can tell of the data: documents a query, examples, steps, and what is there at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from st_l0.data.arrow import is_hub_name
from st_l0.data.mixture import Mixture
from st_l0.data.row_forms import RawRow
from st_l0.data.rows import read_raw_rows
from st_l0.data.texts import check_texts
from st_l0.data.training_data import count_examples, refuse_too_few
from st_l0.errors import InputError
from st_l0.training.arguments import training_steps
from st_l0.training.data_settings import Data
from st_l0.training.recipe import Recipe
from st_l0.training.rounds import left_out

GUESSED_DOCUMENTS = 2
GUESS = "a guess"


def first_row(settings: Data) -> RawRow | None:
    """First row of the training data, where the first source is on this machine."""
    first = settings.paths[0]
    if not Path(first).exists():
        return None
    if settings.corpus is not None and settings.queries is not None:
        check_texts(settings.corpus, "corpus", settings.columns)
        check_texts(settings.queries, "queries", settings.columns)
    rows = read_raw_rows([first], by_id=settings.corpus is not None, columns=settings.columns)
    row = next(rows, None)
    if row is None:
        raise InputError(f"{first}: no training data; give at least one row")
    return row


def count_documents(settings: Data, row: RawRow | None) -> tuple[int, str]:
    """Documents of a training example, and where that is known from."""
    size = settings.documents_per_query
    if size is None:
        return (GUESSED_DOCUMENTS, GUESS) if row is None else (len(row.documents), row.place)
    if row is not None:
        refuse_too_few(row, size)
    return size, "data.documents_per_query"


def plan_mixture(settings: Data, notes: list[str]) -> Mixture | None:
    """The sources and their examples, where they have weights and are on this machine."""
    if settings.weights is None:
        return None
    gone = [path for path in settings.paths if not Path(path).exists()]
    if gone:
        notes.append(f"data.train: how often a row is seen is not known, {gone[0]} is not there")
        return None
    return count_examples(
        settings.paths,
        settings.weights,
        by_id=settings.corpus is not None,
        columns=settings.columns,
        documents_per_query=settings.documents_per_query,
    )


def plan_length(
    recipe: Recipe, arguments: Any, devices: int, mixture: Mixture | None, notes: list[str]
) -> tuple[int | None, str]:
    """Optimizer steps, or ``None`` where the examples are not counted; and the same in words."""
    examples = recipe.data.limit if mixture is None else sum(mixture.counts)
    most = None if examples is None else training_steps(arguments, examples, devices=devices)
    if examples is not None and (lost := left_out(arguments, examples, devices=devices)):
        notes.append(lost if mixture is not None else f"{lost} (if data.limit is reached)")
    if arguments.max_steps > 0:
        return int(arguments.max_steps), f"{arguments.max_steps:,} optimizer steps"
    epochs = f"{arguments.num_train_epochs:g} epochs"
    if most is None:
        if recipe.loss.ramp_steps:
            notes.append(f"loss.ramp_steps not checked against {epochs}: the examples were not counted")
        per_step = arguments.per_device_train_batch_size * devices * arguments.gradient_accumulation_steps
        return None, f"{epochs} of (examples / {per_step:,}) optimizer steps"
    recipe.check_steps(most)
    if mixture is not None:
        return most, f"{epochs}, {most:,} optimizer steps"
    return most, f"{epochs}, by data.limit at most {most:,} optimizer steps"


def name_sources(recipe: Recipe) -> tuple[tuple[str, str], ...]:
    """All that a training reads, and whether it is there."""
    settings = recipe.data
    teachers = [spec.partition(":")[2] for spec in recipe.teachers.specs] if recipe.teachers else []
    names = (*settings.paths, settings.corpus, settings.queries, recipe.model.warm_start, *teachers)
    names += recipe.evaluation.collections if recipe.evaluation else ()
    names += recipe.loss.target_sample.collections if recipe.loss.target_sample else ()
    return tuple((name, _state(name)) for name in dict.fromkeys(filter(None, names)))


def _state(name: str) -> str:
    if Path(name).exists():
        return "there"
    return "no such path: to be fetched from the Hub" if is_hub_name(name) else "not there yet"
