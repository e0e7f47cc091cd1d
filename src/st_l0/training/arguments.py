"""The trainer's arguments out of a recipe, refused by key where the trainer cannot use them."""

from __future__ import annotations

import importlib.util
import logging
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments

from st_l0.errors import InputError
from st_l0.training.recipe import Recipe
from st_l0.training.rehearsal import rehearse
from st_l0.training.rounds import rounds_of_an_epoch
from st_l0.utils.devices import emulates_bfloat16
from st_l0.utils.distributed import launched
from st_l0.utils.stock import use_one_gpu
from st_l0.utils.terminal import is_terminal

logger = logging.getLogger(__name__)


def training_arguments(recipe: Recipe, checkpoints: Path) -> SparseEncoderTrainingArguments:
    """The trainer's arguments; what they name is made once, since the trainer makes it after all is read.

    Which columns are queries and which documents is known when the data are read: see `route_columns`.

    Raises:
        InputError: the trainer refuses a value, or would refuse it when the training begins; a package is
            missing; the processes that were started cannot train together.
    """
    try:
        arguments = _make(recipe, recipe.training, checkpoints)
    except Exception as error:  # of any type: each argument ends in another library
        key = _key_to_blame(recipe, checkpoints)
        if key is None:
            raise
        text = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"training.{key}: {text.removeprefix(f'training.{key}: ')}") from error
    if arguments.world_size != launched():
        raise InputError(
            f"{launched()} processes were started, but the trainer joins {arguments.world_size}: leave "
            "training.use_cpu and training.ddp_backend out"
        )
    if arguments.n_gpu > 1:  # the trainer would split each batch over them, and gather no penalty
        logger.warning(
            "one of %d GPUs is used: torchrun --nproc_per_node %d -m st_l0 train … takes all",
            arguments.n_gpu,
            arguments.n_gpu,
        )
        use_one_gpu(arguments)
    if arguments.bf16 and arguments.device.type == "cpu" and emulates_bfloat16():
        logger.warning("training.bf16 is slower than float32 on this CPU, which does not multiply in it")
    return arguments


def route_columns(arguments: Any, recipe: Recipe, columns: Sequence[str]) -> None:
    """Tell the trainer that the first of ``columns`` is the query, the others documents; and their prompts.

    Raises:
        InputError: ``training.prompts`` names another column, or gives documents different prompts.
    """
    if recipe.model.queries != "model":
        query, *documents = columns
        arguments.router_mapping = {query: "query", **dict.fromkeys(documents, "document")}
    if arguments.prompts is not None:
        arguments.prompts = _column_prompts(arguments.prompts, columns)


def _make(recipe: Recipe, training: Mapping[str, Any], checkpoints: Path) -> SparseEncoderTrainingArguments:
    given: dict[str, Any] = {
        "dataloader_pin_memory": torch.cuda.is_available(),
        # The trainer would follow the verbosity of its log, which the command line turns down.
        "disable_tqdm": not is_terminal(sys.stderr),
        # Queries and documents are two forward passes before one backward pass: looking for parameters that
        # the first did not use would count the table's as done before the second.
        "ddp_find_unused_parameters": False,
        # Otherwise several processes without a GPU would each train alone, and write over each other.
        "use_cpu": not torch.accelerator.is_available(),
        **training,
    }
    if recipe.model.query_learning_rate is not None:
        given["learning_rate_mapping"] = {
            **(given.get("learning_rate_mapping") or {}),
            r"sub_modules\.query\.": recipe.model.query_learning_rate,
        }
    best = given.pop("load_best_model_at_end", False)
    if recipe.evaluation is not None:
        given |= {
            "eval_strategy": "steps",
            "eval_steps": recipe.evaluation.steps,
            "metric_for_best_model": recipe.evaluation.metric,
            "greater_is_better": recipe.evaluation.more_is_better,
        }
        if given.get("lr_scheduler_type") == "reduce_lr_on_plateau":
            mode = "max" if recipe.evaluation.more_is_better else "min"
            given["lr_scheduler_kwargs"] = {"mode": mode, **(given.get("lr_scheduler_kwargs") or {})}
    if given.get("deepspeed") and importlib.util.find_spec("deepspeed") is None:
        raise InputError("needs a package that is not installed: pip install deepspeed")
    arguments = SparseEncoderTrainingArguments(output_dir=str(checkpoints), seed=recipe.seed, **given)
    # Set late: stock wants steps of saving that are a multiple of those of evaluation, so as not to miss the
    # best model; here it is saved when it is found.
    arguments.load_best_model_at_end = bool(best) and recipe.evaluation is not None
    rehearse(arguments)
    return arguments


def _key_to_blame(recipe: Recipe, checkpoints: Path) -> str | None:
    """The key of ``training`` that the trainer cannot use; ``None`` where it would fail without any, too."""
    given = recipe.training

    def works(keys: Sequence[str]) -> bool:
        try:
            _make(recipe, {key: given[key] for key in keys}, checkpoints)
        except Exception:  # of any type, see above
            return False
        return True

    # Of `torch_compile` and `torch_compile_mode`, the latter is the one that says more.
    keys = sorted(given, key=len, reverse=True)
    if not works(()):
        return None
    alone = (key for key in keys if works([other for other in keys if other != key]))
    several = (key for number, key in enumerate(keys) if not works(keys[: number + 1]))
    return next(alone, None) or next(several, None)


def _column_prompts(given: Any, columns: Sequence[str]) -> dict[str, str]:
    """The prompt of each column, those of documents all the same, since a model has one for documents.

    Args:
        given: ``training.prompts``: one text for all columns, or texts by name of a column; ``document``
            stands for all columns of documents.
        columns: Names of the text columns: the query, then the documents.
    """
    if isinstance(given, str):
        return dict.fromkeys(columns, given)
    for name, text in given.items():
        if name not in (*columns, "document") or not isinstance(text, str):
            raise InputError(
                f"training.prompts: {name}: {text!r:.40} is no text for a column; there are "
                f"{', '.join(columns)}, and 'document' for all but the first"
            )
    query, *documents = columns
    prompts = {name: given.get(name, given.get("document", "")) for name in documents}
    if len(set(prompts.values())) > 1:
        found = ", ".join(f"{name}: {text!r:.40}" for name, text in prompts.items())
        raise InputError(f"training.prompts: a model has one prompt for all documents, not {found}")
    return {query: given.get(query, ""), **prompts}


def training_steps(arguments: SparseEncoderTrainingArguments, examples: int, *, devices: int) -> int:
    """Optimizer steps of a training on a number of examples, over all devices.

    Raises:
        InputError: there is not one whole round of batches, and others are dropped.
    """
    rounds = rounds_of_an_epoch(arguments, examples, devices=devices)
    if rounds == 0:
        batch = arguments.per_device_train_batch_size * devices
        if devices > 1:
            cure = f"{devices} devices train on whole rounds only: take smaller batches or fewer devices"
        else:
            cure = "training.dataloader_drop_last drops it: set it to false, or take smaller batches"
        raise InputError(f"the data make {examples} examples, less than one batch of {batch}, and {cure}")
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    steps = max(1, math.ceil(rounds / arguments.gradient_accumulation_steps))
    return math.ceil(steps * arguments.num_train_epochs)
