"""From a recipe to a checkpoint, by the sentence-transformers trainer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import set_seed

from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.training.arguments import training_arguments, training_steps
from st_l0.training.build import build_loss, build_model, build_pool, build_teacher, read_data, set_dropout
from st_l0.training.checkpoints import last_complete_checkpoint
from st_l0.training.checks import WRITTEN, check_output
from st_l0.training.recipe import Recipe
from st_l0.training.trainer import RegularizerRamp, SparseRetrievalTrainer
from st_l0.utils.files import replace_file, replace_folder


def train(recipe: Recipe, *, resume: bool = False) -> Path:
    """Train as the recipe says.

    Under ``output`` it leaves ``model/`` (the checkpoint), ``recipe.yaml`` (with every key) and
    ``checkpoints/`` (to resume from, where ``training.save_strategy`` asks for them).

    Args:
        recipe: What to train.
        resume: Go on from the newest checkpoint under ``output``.

    Returns:
        Folder of the trained model.

    Raises:
        InputError: unusable data or model; nothing to resume; ``output`` holds checkpoints of an earlier run,
            or a model or a recipe that no training has written there, which would be lost.

    Example:
        >>> from st_l0.training import load_recipe
        >>> recipe = load_recipe("small/l0_mask", ["training.max_steps=1000"])
        >>> train(recipe)  # doctest: +SKIP
    """
    output = Path(recipe.output)
    checkpoints = output / "checkpoints"
    checkpoint = last_complete_checkpoint(checkpoints)
    if resume and checkpoint is None:
        raise InputError(f"{checkpoints} holds no checkpoint to resume from: start without --resume")
    if checkpoint is not None and not resume:
        raise InputError(f"{checkpoints} holds an earlier run: give --resume, or another output")
    if checkpoint is not None and not any(checkpoint.glob("rng_state*.pth")):
        raise InputError(
            f"{checkpoint} holds the model only (training.save_only_model), no training to resume: start "
            "another output with model.base_model there"
        )

    check_output(output)

    set_seed(recipe.seed)
    data = read_data(recipe.data)
    documents_per_query = len(data.columns) - 1
    recipe.check_documents(documents_per_query)
    arguments = training_arguments(recipe, data.columns, checkpoints)
    recipe.check_steps(training_steps(arguments, len(data.dataset), devices=arguments.world_size))
    model = build_model(recipe)
    _share_prompts(model, arguments, data.columns)
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
        pool=build_pool(recipe, teacher, data),
    )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    target = output / "model"
    if not all(parameter.isfinite().all() for parameter in model.parameters()):
        raise InputError(
            f"training diverged (NaN weights), {target} was not written: lower training.learning_rate"
        )
    if trainer.is_world_process_zero():
        with replace_folder(target, "trained model") as folder:
            _save(model, folder)
        with replace_file(output / "recipe.yaml") as file:
            file.write_text(f"{WRITTEN}\n{recipe.to_yaml()}", encoding="utf-8")
    trainer.accelerator.wait_for_everyone()
    return target


def _share_prompts(model: SparseEncoder, arguments: Any, columns: Sequence[str]) -> None:
    """Train with the prompts that the model has, or give it those that the recipe trains it with."""
    query, *documents = columns
    if arguments.prompts is None:
        document = model.prompts["document"]
        arguments.prompts = {query: model.prompts["query"], **dict.fromkeys(documents, document)}
    model.prompts |= {"query": arguments.prompts[query], "document": arguments.prompts[documents[0]]}


def _save(model: SparseEncoder, folder: Path) -> None:
    try:
        model.save_pretrained(str(folder))
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch report a full disk
        raise OSError(f"{folder.parent}: the model could not be saved ({error})") from error
