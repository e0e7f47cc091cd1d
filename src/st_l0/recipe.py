"""A training run as data: a YAML file over one validated dataclass.

Relative paths in a recipe are relative to the current directory, not to the recipe.
"""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from st_l0.settings import Section, SettingError, Types, check_bounds, load

# Arguments of the trainer that the recipe sets itself, and what to do instead.
_OWNED = {
    "output_dir": "set output instead",
    "router_mapping": "leave it out, it follows from the model",
    "seed": "set seed outside of training instead",
}

_TRAINING_BOUNDS: dict[str, dict[str, float]] = {
    "num_train_epochs": {"more_than": 0},
    "per_device_train_batch_size": {"at_least": 1},
    "gradient_accumulation_steps": {"at_least": 1},
    "learning_rate": {"at_least": 0},
    "warmup_steps": {"at_least": 0},
    "weight_decay": {"at_least": 0},
}


@functools.cache
def _training_types() -> Types:
    from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments

    hints = typing.get_type_hints(SparseEncoderTrainingArguments)
    names = (spec.name for spec in dataclasses.fields(SparseEncoderTrainingArguments))
    return {name: hints[name] for name in names if name not in _OWNED}


@dataclass(frozen=True)
class Model(Section):
    """The model to start from and the shape of its two sides.

    Attributes:
        base_model: Hub id or folder of a masked language model, or of an existing `SparseEncoder` checkpoint.
        idf: Path of an ``idf.json`` or ``idf.json.gz``; ``"binary"`` weighs every query token 1; ``None``
            keeps the table of the checkpoint that ``base_model`` is.
        activation: ``"relu"`` for log(1 + relu(x)), ``"log1p_relu"`` for one more log, or the number of
            extra logs. ``None`` is ``"relu"``, or what a trained checkpoint states.
        pooling: How the weights of a token at all positions become one. ``None`` is ``"max"``, or what a
            trained checkpoint states.
        max_seq_length: Tokens of a document, the special tokens among them; the rest is cut off. ``None`` is
            256, or what a trained checkpoint states.
        warm_start: Path of texts for the closed-form start of the head, for base models that have none.
        dropout: Probability of dropout in training; ``None`` keeps the base model's own. A short run on a CPU
            does without: it takes a fourth of the time.
    """

    base_model: str
    idf: str | None = None
    activation: Literal["relu", "log1p_relu", 0, 1, 2, 3] | None = None
    pooling: Literal["max", "sum"] | None = None
    max_seq_length: int | None = field(default=None, metadata={"at_least": 8})
    warm_start: str | None = None
    dropout: float | None = field(default=None, metadata={"at_least": 0, "less_than": 1})


@dataclass(frozen=True)
class Data(Section):
    """What to train on.

    Attributes:
        train: Paths of the training data, at least one; a single string stands for a list of one.
        limit: Rows to use at most; ``None`` uses all.
    """

    train: tuple[str, ...]
    limit: int | None = field(default=None, metadata={"at_least": 1})


@dataclass(frozen=True)
class Loss(Section):
    """The ranking loss and the regularizer of the documents.

    Attributes:
        document_regularizer_weight: λ_d, the weight of FLOPS on the documents.
        ranking: The ranking loss.
        temperature: Scores are divided by it before the softmax.
        threshold: Active dims that a document keeps for free (the ℓ0 mask); ``None`` penalises all.
        reduction: ``"pooled"`` takes FLOPS over all documents at once; ``"per_position"`` takes it for each
            document position and sums, as the papers do: a published λ_d means the same only in that form.
        ramp_steps: Optimizer steps over which λ_d grows quadratically from 0.
    """

    document_regularizer_weight: float = field(metadata={"at_least": 0})
    ranking: Literal["infonce"] = "infonce"
    temperature: float = field(default=1.0, metadata={"more_than": 0})
    threshold: int | None = field(default=None, metadata={"at_least": 0})
    reduction: Literal["pooled", "per_position"] = "pooled"
    ramp_steps: int = field(default=0, metadata={"at_least": 0})


@dataclass(frozen=True)
class Recipe(Section):
    """A whole training run. Sections may be given as plain mappings.

    Attributes:
        model: See `Model`.
        data: See `Data`.
        loss: See `Loss`.
        training: Arguments of `sentence_transformers.SparseEncoderTrainingArguments`, checked by name and
            type; ``max_steps`` or ``num_train_epochs`` must be among them, and those that the recipe sets
            itself (``output_dir``, ``router_mapping``, ``seed``) must not.
        output: Folder for the result.
        seed: Seed of the run.

    Raises:
        InputError: A value has the wrong type or is impossible; the message names the full key.
    """

    model: Model
    data: Data
    loss: Loss
    training: dict[str, Any] = field(metadata={"entries": _training_types})
    output: str
    seed: int = field(default=42, metadata={"at_least": 0})

    def __post_init__(self) -> None:
        for name in _OWNED.keys() & (self.training if isinstance(self.training, dict) else ()):
            raise SettingError(f"is set by the recipe itself: {_OWNED[name]}", ("training", name))
        super().__post_init__()
        for name, bounds in _TRAINING_BOUNDS.items():
            try:
                check_bounds(self.training.get(name), bounds)
            except SettingError as error:
                raise error.below(name).below("training") from None
        steps = self.training.get("max_steps", -1)  # -1 is how the trainer spells "not set"
        if steps == 0 or steps < -1:
            raise SettingError(f"must be at least 1, not {steps}", ("training", "max_steps"))
        if steps == -1 and "num_train_epochs" not in self.training:
            raise SettingError("must hold max_steps or num_train_epochs", ("training",))
        if 0 < steps < self.loss.ramp_steps:
            problem = f"must not be longer than training.max_steps ({steps}), not {self.loss.ramp_steps}"
            raise SettingError(problem, ("loss", "ramp_steps"))

    def to_yaml(self) -> str:
        """The recipe as YAML with every key written out; `load_recipe` reads it back to an equal recipe."""
        plain = dataclasses.asdict(self)
        plain["data"]["train"] = list(self.data.train)
        return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        path: A YAML file with the sections and keys of `Recipe`. Relative paths in it are relative to the
            current directory.
        overrides: ``"key.path=value"`` strings such as ``"training.max_steps=10"``, applied in order; the
            value is read as YAML.

    Raises:
        InputError: The file cannot be read, is not YAML in UTF-8 or repeats a key; a key is unknown or
            missing; a value has the wrong type or is impossible. The message is one line and says where.
    """
    return load(Recipe, path, overrides)
