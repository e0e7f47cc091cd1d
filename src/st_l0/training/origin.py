"""Which recipe and data a checkpoint is of, so that no other training goes on from it unawares."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from st_l0.data import TrainingData
from st_l0.errors import InputError
from st_l0.training.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

_ORIGIN = "origin.json"

# What changes where and how long a training runs and what it tells, not what it does in a step.
_MAY_CHANGE = re.compile(
    r"output|evaluation\.(steps|patience)|data\.(train|limit|documents_per_query|score_scale)|teachers\.batch_size|ignore_health"
    r"|training\.(max_steps|num_train_epochs|logging_\w+|log_\w+|save_\w+|eval_\w+|hub_\w+|push_to_hub"
    r"|report_to|run_name|project|trackio_\w+|disable_tqdm|debug|skip_memory_metrics|torch_empty_cache_steps"
    r"|dataloader_(num_workers|pin_memory|persistent_workers|prefetch_factor)|ddp_\w+|enable_jit_checkpoint"
    r"|gradient_checkpointing\w*|activation_checkpointing\w*|restore_callback_states_from_checkpoint)"
)


def origin(recipe: Recipe, data: TrainingData) -> dict[str, Any]:
    """What a checkpoint says of the training that it is of: its recipe, and a checksum of its data."""
    mixture = 0 if data.mixture is None else zlib.crc32(repr(data.mixture.given()).encode())
    return {"recipe": yaml.safe_load(recipe.to_yaml()), "data": checksum(data.dataset, mixture)}


def checksum(dataset: Dataset, found: int = 0) -> int:
    """CRC-32 of what a data set stores, texts or their numbers; ``found`` is that of what comes before."""
    for column in dataset.data.columns:
        for chunk in column.chunks:
            for buffer in chunk.buffers():
                found = found if buffer is None else zlib.crc32(buffer, found)
    return found


def write_origin(checkpoint: Path, found: dict[str, Any]) -> None:
    """Write down what `origin` gave."""
    text = json.dumps(found, ensure_ascii=False, indent=1, default=str)
    (checkpoint / _ORIGIN).write_text(text + "\n", encoding="utf-8")


def changes(checkpoint: Path, now: dict[str, Any]) -> list[str]:
    """The keys of the recipe whose change makes another training, and ``data`` if its rows are others.

    Nothing where the checkpoint is of an earlier version, which did not say.

    Args:
        checkpoint: A whole checkpoint.
        now: What `origin` gives of the training that is to go on from it.
    """
    try:
        then = json.loads((checkpoint / _ORIGIN).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    before, after = _flat(then["recipe"]), _flat(json.loads(json.dumps(now["recipe"], default=str)))
    defaults = _defaults()
    keys = [
        key
        for key in dict.fromkeys([*before, *after])
        if not _MAY_CHANGE.fullmatch(key)
        and before.get(key, defaults.get(key)) != after.get(key, defaults.get(key))
    ]
    return keys + ["data"] * (then["data"] != now["data"])


def check_origin(checkpoint: Path, now: dict[str, Any]) -> None:
    """Refuse to go on from a checkpoint of another training.

    Raises:
        InputError: The recipe differs in what changes the meaning of the run, or the data do.
    """
    found = changes(checkpoint, now)
    if found:
        raise InputError(
            f"{checkpoint} is of a training with other {', '.join(found)}: put that back, start another "
            "output, or give --changed beside --resume"
        )


def _flat(recipe: dict[str, Any]) -> dict[str, Any]:
    """Keys as in ``training.max_steps`` to values."""
    found: dict[str, Any] = {}
    for name, value in recipe.items():
        if isinstance(value, dict):
            found.update({f"{name}.{key}": one for key, one in value.items()})
        else:
            found[name] = value
    return found


def _defaults() -> dict[str, Any]:
    """What keys stand for that a recipe leaves out, or that an earlier version did not know."""
    from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments

    own = {spec.name: spec.default for spec in dataclasses.fields(Recipe)}
    stock = {
        f"training.{spec.name}": spec.default for spec in dataclasses.fields(SparseEncoderTrainingArguments)
    }
    return {
        name: None if default is dataclasses.MISSING else getattr(default, "value", default)
        for name, default in {**own, **stock}.items()
    }
