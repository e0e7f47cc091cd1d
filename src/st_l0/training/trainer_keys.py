"""Which arguments of the trainer a recipe may set, to what, and what to do instead of setting the others.

The trainer that a recipe starts is sentence-transformers', on one data set and with an evaluation of its own,
so that a good part of its 120 arguments does nothing. A recipe that sets one of those is refused: its author
expects something that will not be.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import re
import typing
from collections.abc import Mapping
from typing import Any, Literal

from st_l0.training.settings import SettingError, Types

# Arguments that the recipe sets itself, and what to do instead.
_OWNED = {
    "output_dir": "set output instead",
    "router_mapping": "leave it out, it follows from the model",
    "seed": "set seed outside of training instead",
}

_EVALUATION = "the section evaluation says what is measured while the model trains, and when"
_NO_LABELS = "the losses rank documents, they read no labels"
_BATCHES = "give per_device_train_batch_size; st-l0 train --dry-run estimates the memory"

# Arguments without effect here, and what to do instead; only their default may be given.
NO_EFFECT = {
    **dict.fromkeys(
        (
            *("eval_strategy", "eval_steps", "eval_delay", "eval_on_start", "per_device_eval_batch_size"),
            *("eval_accumulation_steps", "eval_do_concat_batches", "eval_use_gather_object"),
            *("bf16_full_eval", "fp16_full_eval", "prediction_loss_only", "include_for_metrics"),
            "batch_eval_metrics",
        ),
        _EVALUATION,
    ),
    **dict.fromkeys(("do_train", "do_eval", "do_predict"), "st-l0 train trains, st-l0 evaluate evaluates"),
    **dict.fromkeys(("label_names", "label_smoothing_factor"), _NO_LABELS),
    **dict.fromkeys(("length_column_name", "train_sampling_strategy"), "set batch_sampler instead"),
    **dict.fromkeys(("use_liger_kernel", "liger_kernel_config", "use_cache"), "it is for language models"),
    **dict.fromkeys(
        ("dataloader_in_order", "dataloader_multiprocessing_context", "remove_unused_columns"),
        "the trainer of sentence-transformers does not read it",
    ),
    **dict.fromkeys(("metric_for_best_model", "greater_is_better"), "set evaluation.metric instead"),
    "auto_find_batch_size": _BATCHES,
    "average_tokens_across_devices": "the losses count documents, over all devices",
    "ddp_broadcast_buffers": "the trainer of sentence-transformers turns it off",
    "data_seed": "set seed outside of training instead",
    "include_num_input_tokens_seen": "tokens of queries and documents are not counted together",
    "local_rank": "torchrun and accelerate launch set it",
    "multi_dataset_batch_sampler": "all of data.train is one data set",
    "neftune_noise_alpha": "an encoder of two sides has no one embedding; set model.dropout instead",
    "parallelism_config": "it cannot be written as text; accelerate launch sets it",
    "resume_from_checkpoint": "give --resume to st-l0 train instead",
}

# Arguments that do nothing where none of some others is set.
_CHECKPOINTING = ("gradient_checkpointing", "activation_checkpointing")
_NEEDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("hub_strategy", "hub_always_push", "hub_private_repo", "hub_revision"), ("push_to_hub",)
    ),
    **dict.fromkeys(
        ("dataloader_persistent_workers", "dataloader_prefetch_factor"), ("dataloader_num_workers",)
    ),
    **dict.fromkeys(
        ("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), ("report_to",)
    ),
    **dict.fromkeys(("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs"), _CHECKPOINTING),
    "fsdp_config": ("fsdp",),
    "optim_target_modules": ("optim",),
    "lr_scheduler_kwargs": ("lr_scheduler_type",),
}

_MANY: dict[str, float] = {"at_least": 1, "at_most": 2**31 - 1}
TRAINING_BOUNDS: dict[str, dict[str, float]] = {
    "per_device_train_batch_size": {"at_least": 1, "at_most": 1_000_000},
    "num_train_epochs": {"more_than": 0, "at_most": 1_000_000},
    "max_steps": {"at_most": 2**31 - 1},
    "gradient_accumulation_steps": {"at_least": 1, "at_most": 1_000_000},
    "learning_rate": {"at_least": 0},
    "warmup_steps": {"at_least": 0, "at_most": 2**31 - 1},
    "warmup_ratio": {"at_least": 0, "less_than": 1},
    "weight_decay": {"at_least": 0},
    "adam_beta1": {"at_least": 0, "less_than": 1},
    "adam_beta2": {"at_least": 0, "less_than": 1},
    "adam_epsilon": {"more_than": 0, "at_most": 1},
    "max_grad_norm": {"at_least": 0},
    "torch_empty_cache_steps": _MANY,
    "logging_steps": {"more_than": 0, "at_most": 2**31 - 1},
    "save_steps": {"more_than": 0, "at_most": 2**31 - 1},
    "save_total_limit": _MANY,
    "dataloader_num_workers": {"at_least": 0, "at_most": 1024},
    "dataloader_prefetch_factor": {"at_least": 1, "at_most": 1024},
    "ddp_bucket_cap_mb": {"at_least": 1, "at_most": 1_000_000},
    "ddp_timeout": {"at_least": 1, "at_most": 1_000_000_000},
}

# Of these the trainer's own hints admit more than it takes, or than a file can say.
_NARROWER: dict[str, Any] = {
    # Grouping by label wants labels, and other samplers are classes.
    "batch_sampler": Literal["batch_sampler", "no_duplicates", "no_duplicates_hashed"],
    "gradient_checkpointing_kwargs": dict[str, Any] | None,
    "activation_checkpointing_kwargs": dict[str, Any] | None,
    "lr_scheduler_kwargs": dict[str, Any] | None,
    "prompts": str | dict[str, str] | None,
    "learning_rate_mapping": dict[str, float] | None,
    "ddp_backend": Literal["nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl", "xccl"] | None,
}

# What the trainer takes of accelerate's own settings. The others divide batches anew, which the losses would
# not know, or speak of an `Accelerator` that was made before.
_ACCELERATOR = ("non_blocking", "even_batches", "use_seedable_sampler")

_COLUMN = re.compile(r"query|positive|negative(_\d+)?|document(_\d+)?")  # see `st_l0.data.TrainingData`


@functools.cache
def training_types() -> Types:
    """Name to type of all arguments that a recipe may give, those without effect with their one value."""
    from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments
    from transformers.training_args import trainer_log_levels

    levels: Any = Literal[tuple(trainer_log_levels)]
    narrower = {**_NARROWER, "log_level": levels, "log_level_replica": levels}
    hints = typing.get_type_hints(SparseEncoderTrainingArguments)
    types = {}
    for spec in dataclasses.fields(SparseEncoderTrainingArguments):
        if spec.name in NO_EFFECT:
            default = spec.default.value if isinstance(spec.default, enum.Enum) else spec.default
            types[spec.name] = Literal[None if default is dataclasses.MISSING else default]
        elif spec.name not in _OWNED:
            types[spec.name] = narrower.get(spec.name, hints[spec.name])
    return types


def training_help() -> Mapping[str, str]:
    """Name to description of the trainer's arguments."""
    from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments

    return {
        spec.name: " ".join(spec.metadata["help"].split())
        for spec in dataclasses.fields(SparseEncoderTrainingArguments)
        if "help" in spec.metadata
    }


def check_owned(training: Mapping[str, Any]) -> None:
    """Refuse arguments that the recipe sets itself.

    Raises:
        SettingError: There is one.
    """
    for name in _OWNED.keys() & training.keys():
        raise SettingError(f"is set by the recipe itself: {_OWNED[name]}", ("training", name))


def check_training(training: Mapping[str, Any], *, evaluated: bool) -> None:
    """Refuse arguments, of right types and bounds each, that do not go together.

    Args:
        training: The arguments.
        evaluated: Whether the recipe has a section ``evaluation``.

    Raises:
        SettingError: There are some.
    """
    steps = training.get("max_steps", -1)  # -1 is how the trainer spells "not set"
    if steps == 0 or steps < -1:
        raise SettingError(f"must be at least 1, not {steps}", ("training", "max_steps"))
    if steps == -1 and "num_train_epochs" not in training:
        raise SettingError("must hold max_steps or num_train_epochs", ("training",))
    for name, needed in _NEEDS.items():
        if training.get(name) not in (None, False) and not set(needed) & training.keys():
            raise SettingError(f"has no effect without training.{needed[-1]}", ("training", name))
    best = bool(training.get("load_best_model_at_end"))
    if not evaluated and (best or training.get("save_strategy") == "best"):
        name = "load_best_model_at_end" if best else "save_strategy"
        raise SettingError("needs the section evaluation, which says what is best", ("training", name))
    if best and training.get("save_strategy") == "no":
        problem = "needs checkpoints: leave training.save_strategy out"
        raise SettingError(problem, ("training", "load_best_model_at_end"))
    for name in ("fsdp", "deepspeed") if evaluated else ():
        if training.get(name):
            problem = "does not go with the section evaluation: st-l0 evaluate measures the trained model"
            raise SettingError(problem, ("training", name))
    if training.get("warmup_ratio") and training.get("warmup_steps"):
        raise SettingError(
            "has no effect beside training.warmup_steps: keep one", ("training", "warmup_ratio")
        )
    prompts = training.get("prompts")
    for column in prompts if isinstance(prompts, dict) else ():
        if not _COLUMN.fullmatch(column):
            known = "query, positive, negative, negative_1, document_1 …, and document for all of them"
            problem = f"is no column of training data: {known}"
            raise SettingError(problem, ("training", "prompts", column))
    accelerator = training.get("accelerator_config") or {}
    if not isinstance(accelerator, dict):
        raise SettingError("must be a mapping", ("training", "accelerator_config"))
    for name, value in accelerator.items():
        if name not in _ACCELERATOR or not isinstance(value, bool):
            problem = f"must be true or false for one of {', '.join(_ACCELERATOR)}"
            raise SettingError(problem, ("training", "accelerator_config"))
