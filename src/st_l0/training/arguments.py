"""The trainer's arguments out of a recipe, and what the trainer would say of them too late or not at all."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments
from transformers.optimization import get_scheduler

from st_l0.errors import InputError
from st_l0.training.recipe import Recipe
from st_l0.utils.distributed import launched
from st_l0.utils.stock import get_reporting_integration_callbacks, use_one_gpu
from st_l0.utils.terminal import is_terminal

logger = logging.getLogger(__name__)


def training_arguments(
    recipe: Recipe, columns: Sequence[str], checkpoints: Path
) -> SparseEncoderTrainingArguments:
    """The trainer's arguments; the first of ``columns`` is the query, the others are documents.

    Raises:
        InputError: the trainer refuses a value, or would refuse it when the training begins; the processes
            that were started cannot train together.
    """
    query, *documents = columns
    routes = {query: "query", **dict.fromkeys(documents, "document")}
    defaults: dict[str, Any] = {
        "dataloader_pin_memory": torch.cuda.is_available(),
        # The trainer would follow the verbosity of its log, which the command line turns down.
        "disable_tqdm": not is_terminal(sys.stderr),
        # Queries and documents are two forward passes before one backward pass: looking for parameters that
        # the first did not use would count the table's as done before the second.
        "ddp_find_unused_parameters": False,
        # Otherwise several processes without a GPU would each train alone, and write over each other.
        "use_cpu": not torch.accelerator.is_available(),
    }
    given = {**defaults, **recipe.training}
    if given.get("prompts") is not None:
        given["prompts"] = _column_prompts(given["prompts"], columns)
    if recipe.model.query_learning_rate is not None:
        given["learning_rate_mapping"] = {
            **(given.get("learning_rate_mapping") or {}),
            r"sub_modules\.query\.": recipe.model.query_learning_rate,
        }
    try:
        arguments = SparseEncoderTrainingArguments(
            output_dir=str(checkpoints),
            seed=recipe.seed,
            router_mapping=None if recipe.model.queries == "model" else routes,
            **given,
        )
        _check_late(arguments)
    except (TypeError, ValueError, re.error) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from error
    if arguments.eval_strategy != "no" or arguments.load_best_model_at_end:
        raise InputError(
            "training: eval_strategy must be 'no' and load_best_model_at_end false: a recipe names no data "
            "to evaluate on"
        )
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
    return arguments


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


def _check_late(arguments: Any) -> None:
    """Make what the trainer makes of some arguments, long after it was given them."""
    if arguments.save_strategy == "best":
        raise ValueError("save_strategy must be steps, epoch or no, not best")
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=0,
        num_training_steps=1,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    get_reporting_integration_callbacks(arguments.report_to)
    for pattern, rate in arguments.learning_rate_mapping.items():
        re.compile(pattern)
        if not isinstance(rate, int | float) or not 0 <= rate < math.inf:
            raise ValueError(f"learning_rate_mapping gives {pattern!r} {rate!r}; give a number")


def training_steps(arguments: SparseEncoderTrainingArguments, examples: int, *, devices: int) -> int:
    """Optimizer steps of a training on a number of examples, over all devices.

    Raises:
        InputError: there is not one whole batch, and others are dropped.
    """
    batch = arguments.per_device_train_batch_size * devices
    batches = examples // batch if arguments.dataloader_drop_last else math.ceil(examples / batch)
    if batches == 0:
        raise InputError(
            f"the data make {examples} examples, less than one batch of {batch}, and "
            "training.dataloader_drop_last drops it: set it to false, or take smaller batches"
        )
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    steps = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    return math.ceil(steps * arguments.num_train_epochs)
