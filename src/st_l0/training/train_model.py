"""From a recipe to a checkpoint, by the sentence-transformers trainer."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from transformers import set_seed

from st_l0.data import TrainingData
from st_l0.encoder.model_card import ModelCardData, write_training
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.training.arguments import route_columns, training_arguments, training_steps
from st_l0.training.build import build_loss, build_model, build_pool, build_teacher, read_data, set_dropout
from st_l0.training.checkpoints import last_complete_checkpoint
from st_l0.training.checks import RECIPE, WRITTEN, check_batch, check_output
from st_l0.training.evaluation import PeriodicEvaluation
from st_l0.training.facts import training_facts
from st_l0.training.health import HealthWatch, verdict
from st_l0.training.origin import changes, check_origin, origin
from st_l0.training.recipe import Recipe
from st_l0.training.rounds import left_out
from st_l0.training.sparsity_target import SparsityTarget
from st_l0.training.trainer import RegularizerRamp, SparseRetrievalTrainer
from st_l0.utils.distributed import first_of_run, launched
from st_l0.utils.files import replace_file, replace_folder
from st_l0.utils.progress import write
from st_l0.utils.resumable import hold_output

logger = logging.getLogger(__name__)

_SAMPLE = 64  # documents that a trained model must not all leave empty


def train(recipe: Recipe, *, resume: bool = False, changed: bool = False) -> Path:
    """Train as the recipe says.

    Under ``output`` it leaves ``model/`` (the checkpoint), ``recipe.yaml`` (with every key),
    ``trainer_state.json`` (the log, and what `st_l0.training.health.verdict` found) and ``checkpoints/`` (to
    resume from, where ``training.save_strategy`` asks for them).

    Args:
        recipe: What to train.
        resume: Go on from the newest checkpoint under ``output``, with the same recipe and data but for what
            changes no step: length, log, saving and the like.
        changed: Go on with another recipe or other data, too; learning rate and schedule are those of the
            recipe, at the step that was reached.

    Returns:
        Folder of the trained model.

    Raises:
        InputError: unusable data or model; nothing to resume; ``output`` holds checkpoints of an earlier run,
            or a model or a recipe that no training has written there, which would be lost; another training
            writes there; the training diverged, or its model finds nothing because every document is empty.

    Example:
        >>> from st_l0.training import load_recipe
        >>> recipe = load_recipe("small/l0_mask", ["training.max_steps=1000"])
        >>> train(recipe)  # doctest: +SKIP
    """
    if changed and not resume:
        raise InputError("--changed is for --resume: it says that another recipe goes on")
    output = Path(recipe.output)
    with hold_output(output, "is training there"):
        return _train(recipe, output, resume, changed)


def _train(recipe: Recipe, output: Path, resume: bool, changed: bool) -> Path:
    check_output(recipe)
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

    arguments = training_arguments(recipe, checkpoints)
    evaluation = None if recipe.evaluation is None else PeriodicEvaluation(recipe.evaluation)
    set_seed(recipe.seed)
    data = read_data(recipe.data)
    documents_per_query = len(data.columns) - 1
    identity = origin(recipe, data)
    if checkpoint is not None and not changed:
        check_origin(checkpoint, identity)
    recipe.check_documents(documents_per_query)
    route_columns(arguments, recipe, data.columns)
    recipe.check_steps(training_steps(arguments, len(data.dataset), devices=arguments.world_size))
    lost = left_out(arguments, len(data.dataset), devices=arguments.world_size)
    if lost and launched() > 1 and first_of_run():
        write(lost)
    at_once = arguments.per_device_train_batch_size * arguments.world_size
    check_batch(recipe, documents_per_query, min(at_once, len(data.dataset)))
    model = build_model(recipe)
    _share_prompts(model, arguments, data.columns)
    if recipe.model.dropout is not None:
        set_dropout(model, recipe.model.dropout)
    teacher = build_teacher(recipe, model, data)
    loss = build_loss(recipe, model, documents_per_query)
    sparsity = None if recipe.loss.target is None else SparsityTarget(recipe.loss, model, loss)
    others = [] if checkpoint is None else changes(checkpoint, identity)
    trainer = SparseRetrievalTrainer(
        model=model,
        args=arguments,
        train_dataset=data.dataset,
        loss=loss,
        callbacks=[RegularizerRamp(loss)],
        teacher=teacher,
        in_batch_negatives=bool(recipe.loss.in_batch_negatives),
        origin=identity,
        pool=build_pool(recipe, teacher, data),
        ignore_health=recipe.ignore_health,
        evaluation=evaluation,
        target=sparsity,
        evaluate_anew=any(key.startswith("evaluation.") for key in others),
    )
    if checkpoint is not None and changed:
        logger.warning(
            "%s is gone on from with other %s: learning rate and schedule are the recipe's",
            checkpoint,
            ", ".join(others) or "nothing",
        )
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))

    target = output / "model"
    HealthWatch(checkpoints).check_weights(trainer.state.global_step, model)
    if not recipe.ignore_health and not (trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled):
        _refuse_empty(model, data, target)
    found = verdict(trainer.state.log_history, cast(int, model.get_embedding_dimension()))
    if trainer.is_world_process_zero():
        outcome, missed = (None, None) if sparsity is None else sparsity.outcome()
        found += [] if missed is None else [missed]
        for sentence in found:
            logger.warning("%s", sentence)
        callbacks = cast("dict[str, Any]", trainer.state.stateful_callbacks)
        callbacks["health"] = {"args": {}, "attributes": {"findings": found}}
        card = cast(ModelCardData, model.model_card_data)
        card.location = str(target)
        card.training = training_facts(
            recipe, data, trainer, found, resumed=checkpoint is not None, sparsity=outcome
        )
        with replace_folder(target, "trained model") as folder:
            _save(model, folder)
            write_training(folder, card.training)
        with replace_file(output / "recipe.yaml", RECIPE) as file:
            file.write_text(f"{WRITTEN}\n{recipe.to_yaml()}", encoding="utf-8")
        with replace_file(output / "trainer_state.json") as file:
            trainer.state.save_to_json(str(file))
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
        model.save(str(folder), layout="root")  # as others take it
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch report a full disk
        raise OSError(f"{folder.parent}: the model could not be saved ({error})") from error


def _refuse_empty(model: SparseEncoder, data: TrainingData, target: Path) -> None:
    """Refuse a model that knows no word of the first documents it was trained on."""
    texts = data.dataset[: min(_SAMPLE, len(data.dataset))][data.columns[1]]
    if not model.encode_document(list(texts), convert_to_scipy=True).getnnz():
        raise InputError(
            f"all {len(texts)} documents that were looked at are empty, {target} was not written: lower "
            "loss.document_regularizer_weight or training.learning_rate, or raise loss.ramp_steps "
            "(ignore_health: true saves it)"
        )
