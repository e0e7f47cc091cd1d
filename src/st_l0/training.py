"""From a recipe to a checkpoint, by the sentence-transformers trainer."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments
from transformers import set_seed

from st_l0.building import build_loss, build_model, build_teacher, read_data, set_dropout
from st_l0.encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.files import replace_file, replace_folder
from st_l0.recipe import Recipe
from st_l0.states import newest_state
from st_l0.trainer import RegularizerRamp, SparseRetrievalTrainer


def train(recipe: Recipe, *, resume: bool = False) -> Path:
    """Train as the recipe says.

    Under ``output`` it leaves ``model/`` (the checkpoint), ``recipe.yaml`` (with every key) and
    ``checkpoints/`` (states to resume from, where ``training.save_strategy`` asks for them).

    Args:
        recipe: what to train.
        resume: go on from the newest state under ``output``.

    Returns:
        Folder of the trained model.

    Raises:
        InputError: unusable data or model; nothing to resume; states of an earlier run that would be lost.
    """
    output = Path(recipe.output)
    states = output / "checkpoints"
    checkpoint = newest_state(states)
    if resume and checkpoint is None:
        raise InputError(f"{states} holds no state to resume from: start without --resume")
    if checkpoint is not None and not resume:
        raise InputError(f"{states} holds an earlier run: give --resume, or another output")

    set_seed(recipe.seed)
    data = read_data(recipe.data)
    documents_per_query = len(data.columns) - 1
    arguments = training_arguments(recipe, data.columns, states)
    recipe.check_steps(training_steps(arguments, len(data.dataset)))
    model = build_model(recipe)
    if recipe.model.dropout is not None:
        set_dropout(model, recipe.model.dropout)
    teacher = build_teacher(recipe, model, data)
    loss = build_loss(recipe, model, documents_per_query)
    trainer = SparseRetrievalTrainer(
        model=model,
        args=arguments,
        train_dataset=data.dataset,
        loss=loss,
        callbacks=[RegularizerRamp(loss)],
        teacher=teacher,
        in_batch_negatives=bool(recipe.loss.in_batch_negatives),
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    target = output / "model"
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"training diverged (NaN weights), {target} was not written: lower training.learning_rate"
        )
    if trainer.is_world_process_zero():
        with replace_folder(target) as folder:
            _save(model, folder)
        with replace_file(output / "recipe.yaml") as file:
            file.write_text(recipe.to_yaml(), encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return target


def _save(model: SparseEncoder, folder: Path) -> None:
    try:
        model.save_pretrained(str(folder))
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch report a full disk
        raise OSError(f"{folder.parent}: the model could not be saved ({error})") from error


def training_arguments(
    recipe: Recipe, columns: Sequence[str], states: Path
) -> SparseEncoderTrainingArguments:
    """The trainer's arguments; the first of ``columns`` is the query, the others are documents.

    Raises:
        InputError: the trainer refuses a value.
    """
    query, *documents = columns
    routes = {query: "query", **dict.fromkeys(documents, "document")}
    defaults: dict[str, Any] = {
        "dataloader_pin_memory": torch.cuda.is_available(),
        # The trainer would follow the verbosity of its log, which the command line turns down.
        "disable_tqdm": not sys.stderr.isatty(),
        # Queries and documents are two forward passes before one backward pass: looking for parameters that
        # the first did not use would count the table's as done before the second.
        "ddp_find_unused_parameters": False,
    }
    if recipe.model.query_learning_rate is not None:
        mapping = recipe.training.get("learning_rate_mapping") or {}
        rates = {**mapping, r"sub_modules\.query\.": recipe.model.query_learning_rate}
        defaults["learning_rate_mapping"] = rates
    try:
        arguments = SparseEncoderTrainingArguments(
            output_dir=str(states),
            seed=recipe.seed,
            router_mapping=None if recipe.model.queries == "model" else routes,
            **{**recipe.training, **{k: v for k, v in defaults.items() if k not in recipe.training}},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from error
    if arguments.eval_strategy != "no":
        raise InputError("training: eval_strategy must be 'no', a recipe names no data to evaluate on")
    return arguments


def training_steps(arguments: SparseEncoderTrainingArguments, examples: int) -> int:
    """Optimizer steps of a training on a number of examples, over all devices."""
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    batch = int(arguments.train_batch_size * arguments.world_size)
    batches = examples // batch if arguments.dataloader_drop_last else math.ceil(examples / batch)
    steps = max(1, math.ceil(batches / arguments.gradient_accumulation_steps))
    return math.ceil(steps * arguments.num_train_epochs)
