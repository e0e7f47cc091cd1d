"""What a trained model says of its training: in its card, and beside it for later cards."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
import yaml

from st_l0.training.data_settings import Data
from st_l0.training.recipe import Recipe

if TYPE_CHECKING:
    from st_l0.data import TrainingData
    from st_l0.encoder.model_card import ModelCardData
    from st_l0.training.trainer import SparseRetrievalTrainer


def training_facts(
    recipe: Recipe,
    data: TrainingData,
    trainer: SparseRetrievalTrainer,
    health: Sequence[str],
    *,
    resumed: bool,
    sparsity: str | None,
) -> dict[str, Any]:
    """What `st_l0.encoder.model_card.ModelCardData` shows as ``training``; no path of this machine is in it.

    Args:
        recipe: What was trained.
        data: On which data.
        trainer: That trained it, at the end.
        health: What `st_l0.training.health.verdict` found.
        resumed: Whether the training went on from a checkpoint, so that nobody knows the time of it all.
        sparsity: What became of the target of sparsity, where the recipe had one.
    """
    card = cast("ModelCardData", trainer._encoder().model_card_data)
    log = trainer.state.log_history
    seconds = next((line["train_runtime"] for line in reversed(log) if "train_runtime" in line), None)
    last: dict[str, Any] = next((line for line in reversed(log) if "document_active_dims" in line), {})
    loss, devices = recipe.loss, trainer.args.world_size
    batch = trainer.args.train_batch_size * trainer.args.gradient_accumulation_steps * devices
    facts = {
        "Start": _name(recipe.model.base_model),
        "Query weights": _query_weights(recipe),
        "Data": _data(recipe.data),
        "Examples": f"{len(data.dataset):,}, each a query and {len(data.columns) - 1} documents",
        "Teachers": ", ".join(map(_name, recipe.teachers.specs)) if recipe.teachers else None,
        "Ranking loss": ", ".join(loss.ranking),
        "Penalty on documents": f"λ {loss.document_regularizer_weight:g} ({card_loss(trainer.loss)})",
        "Target": sparsity,
        "Threshold t": loss.threshold,
        "Steps": f"{trainer.state.global_step:,} of {batch} queries",
        "Learning rate": f"{trainer.args.learning_rate:g}",
        "Length of documents": f"{recipe.model.max_seq_length or trainer._encoder().max_seq_length} tokens",
        "Seed": recipe.seed,
        "Active dims of a document at the end": _rounded(last.get("document_active_dims")),
        "Hardware": _hardware(devices),
        "Wall time": None if seconds is None or resumed else _duration(seconds),
        "Versions": ", ".join(f"{name} {version}" for name, version in card.version.items()),
    }
    return {
        "recipe": yaml.safe_dump(
            _public(yaml.safe_load(recipe.to_yaml())), sort_keys=False, allow_unicode=True
        ),
        "facts": {name: value for name, value in facts.items() if value not in (None, "")},
        "health": list(health),
        "citations": dict(card.citations),
        "tags": [tag for tag in card.tags if tag.startswith(("loss:", "dataset_size:"))],
    }


def _data(settings: Data) -> str:
    names = list(map(_name, settings.paths))
    if settings.weights is not None:
        total = sum(settings.weights)
        names = [
            f"{name} ({100 * weight / total:.3g} %)"
            for name, weight in zip(names, settings.weights, strict=True)
        ]
    return ", ".join(names)


def card_loss(loss: Any) -> str:
    """Name of the penalty of a loss."""
    return type(loss.document_regularizer).__name__


def _query_weights(recipe: Recipe) -> str:
    model = recipe.model
    kinds = {
        "trained_table": "a table that was trained",
        "learned_scores": "scores learned from the embeddings of the tokens",
        "model": "the model itself",
    }
    kind = kinds.get(model.queries, "a table")
    if model.idf == "binary":
        return f"{kind}, 1 for every token"
    return kind if model.idf is None else f"{kind}, from {_name(model.idf)}"


def _name(value: str) -> str:
    """A path without the folders of this machine; a name of the Hub, such as ``dense:org/name``, as it is."""
    kind, colon, place = value.partition(":") if value.split(":")[0].isidentifier() else ("", "", value)
    if not Path(place).exists() and place.count("/") <= 1 and not place.startswith((".", "/", "~")):
        return value
    return kind + colon + Path(place).name


def _public(value: Any) -> Any:
    """A recipe without what tells of this machine: folders, and where the output goes."""
    if isinstance(value, dict):
        return {key: _public(one) for key, one in value.items() if key != "output" and one is not None}
    if isinstance(value, list):
        return [_public(one) for one in value]
    return _name(value) if isinstance(value, str) and ("/" in value or "\\" in value) else value


def _hardware(devices: int) -> str:
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        name = torch.cuda.get_device_name() if torch.cuda.is_available() else str(kind)
        return f"{devices} × {name}"
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} seconds" if seconds < 120 else f"{seconds / 60:.0f} minutes"


def _rounded(value: float | None) -> str | None:
    return None if value is None else f"{value:.0f}"
