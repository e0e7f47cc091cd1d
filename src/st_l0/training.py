"""From a recipe to a checkpoint, by the sentence-transformers trainer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import SafetensorError
from sentence_transformers.sparse_encoder.trainer import SparseEncoderTrainer
from sentence_transformers.sparse_encoder.training_args import SparseEncoderTrainingArguments
from transformers import TrainerCallback, TrainerControl, TrainerState, set_seed

from st_l0.assembly import Sides, read_sides
from st_l0.checkpoints import Access, layout, position_limit
from st_l0.data import read_documents, read_pairs
from st_l0.encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.files import replace_file, replace_folder
from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss, SparseRetrievalLoss
from st_l0.recipe import Recipe

if TYPE_CHECKING:
    from datasets import Dataset


class SparseRetrievalTrainer(SparseEncoderTrainer):
    """The sparse trainer, which also logs active dims, FLOPS and the regularizer's weight."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log; a training log gets the loss's statistics since the last one."""
        if "loss" in logs and isinstance(self.loss, SparseRetrievalLoss):
            logs = {**logs, **self.loss.pop_statistics()}
        super().log(logs, start_time)


class RegularizerRamp(TrainerCallback):
    """Tells the loss at which optimizer step it is, after a resume too."""

    def __init__(self, loss: SparseRetrievalLoss) -> None:
        self.loss = loss

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Set the regularizer's weight for the step that begins."""
        self.loss.set_step(state.global_step)


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
    checkpoint = _newest_state(states)
    if resume and checkpoint is None:
        raise InputError(f"{states} holds no state to resume from: start without --resume")
    if checkpoint is not None and not resume:
        raise InputError(f"{states} holds an earlier run: give --resume, or another output")

    set_seed(recipe.seed)
    dataset = read_pairs(recipe.data.train)
    if recipe.data.limit is not None:
        dataset = dataset.select(range(min(recipe.data.limit, len(dataset))))
    arguments = training_arguments(recipe, dataset, states)
    model = build_model(recipe)
    if recipe.model.dropout is not None:
        set_dropout(model, recipe.model.dropout)
    loss = build_loss(recipe, model, dataset)
    trainer = SparseRetrievalTrainer(
        model=model, args=arguments, train_dataset=dataset, loss=loss, callbacks=[RegularizerRamp(loss)]
    )
    trainer.train(resume_from_checkpoint=checkpoint)

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


def _newest_state(states: Path) -> str | None:
    """The newest state that is whole: ``trainer_state.json`` is written after weights and optimizer."""
    whole = [path.parent for path in states.glob("checkpoint-*/trainer_state.json")]
    steps = {int(path.name.removeprefix("checkpoint-")): path for path in whole}
    return str(steps[max(steps)]) if steps else None


def _save(model: SparseEncoder, folder: Path) -> None:
    try:
        model.save_pretrained(str(folder))
    except (SafetensorError, RuntimeError) as error:  # how safetensors and torch report a full disk
        raise OSError(f"{folder.parent}: the model could not be saved ({error})") from error


def build_model(recipe: Recipe) -> SparseEncoder:
    """Load the checkpoint, or start an encoder from the masked language model, that the recipe names.

    Raises:
        InputError: settings that do not go with the kind of ``base_model``.
    """
    settings = recipe.model
    kind = layout(settings.base_model, Access())
    if kind == "sparse-encoder" or (kind == "mlm-with-idf" and settings.idf is None):
        if settings.idf is not None or settings.warm_start is not None:
            raise InputError(
                f"{settings.base_model} is a trained encoder: leave model.idf and model.warm_start out"
            )
        if kind == "sparse-encoder" and (settings.activation, settings.pooling) != (None, None):
            raise InputError(
                f"{settings.base_model} is a trained encoder: leave model.activation and model.pooling out"
            )
        model = SparseEncoder.from_pretrained(settings.base_model, activation=settings.activation)
        if settings.max_seq_length is not None:  # of the documents only
            transformer = cast(Sides, read_sides(model[0])).transformer
            positions = position_limit(transformer.model.config)
            transformer.max_seq_length = min(settings.max_seq_length, positions)
        return model
    if settings.idf is None:
        raise InputError(
            f"{settings.base_model} has no query weights: give model.idf (st-l0 idf makes one) or 'binary'"
        )
    texts = None
    if settings.warm_start is not None:
        texts = (document.text for document in read_documents(settings.warm_start))
    return SparseEncoder.from_mlm(
        settings.base_model,
        idf=settings.idf,
        activation="relu" if settings.activation is None else settings.activation,
        pooling=settings.pooling or "max",
        max_seq_length=settings.max_seq_length or 256,
        warm_start=texts,
    )


def set_dropout(model: torch.nn.Module, probability: float) -> None:
    """Set the probability of every dropout of a model, for this process only: it is not saved."""
    module: Any
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = probability
        elif isinstance(
            getattr(module, "attention_dropout", None), float
        ):  # handed to the attention function
            module.attention_dropout = probability


def build_loss(recipe: Recipe, model: SparseEncoder, dataset: Dataset) -> SparseRetrievalLoss:
    """Build the loss that the recipe describes, for the columns of ``dataset``."""
    settings = recipe.loss
    positions = len(dataset.column_names) - 1 if settings.reduction == "per_position" else 1
    return SparseRetrievalLoss(
        model,
        InfoNCELoss(settings.temperature),
        L0MaskFlopsLoss(settings.threshold, positions=positions),
        settings.document_regularizer_weight,
        ramp_steps=settings.ramp_steps,
    )


def training_arguments(recipe: Recipe, dataset: Dataset, states: Path) -> SparseEncoderTrainingArguments:
    """The trainer's arguments; the first column is the query, the others are documents.

    Raises:
        InputError: the trainer refuses a value.
    """
    query, *documents = dataset.column_names
    defaults = {
        "dataloader_pin_memory": torch.cuda.is_available(),
        # The trainer would follow the verbosity of its log, which the command line turns down.
        "disable_tqdm": not sys.stderr.isatty(),
    }
    try:
        arguments = SparseEncoderTrainingArguments(
            output_dir=str(states),
            seed=recipe.seed,
            router_mapping={query: "query", **dict.fromkeys(documents, "document")},
            **{**defaults, **recipe.training},
        )
    except (TypeError, ValueError) as error:
        raise InputError(f"training: {' '.join(str(error).split())}") from error
    if arguments.eval_strategy != "no":
        raise InputError("training: eval_strategy must be 'no', a recipe names no data to evaluate on")
    return arguments
