"""A dry run: what a recipe would do, checked and added up before data are read or weights loaded."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from st_l0.data.row_forms import RawRow
from st_l0.data.training_data import column_names
from st_l0.encoder.pretrained import position_limit
from st_l0.errors import InputError
from st_l0.losses import convert_weight
from st_l0.training.arguments import route_columns, training_arguments
from st_l0.training.checkpoints import last_complete_checkpoint
from st_l0.training.checks import check_batch, check_output, check_scores, check_teachers
from st_l0.training.evaluation import PeriodicEvaluation
from st_l0.training.loss_settings import Loss
from st_l0.training.memory import BaseModel, Memory, check_table, estimate_memory, read_base
from st_l0.training.mixing import in_words as mixed_in_words
from st_l0.training.plan_data import (
    GUESS,
    count_documents,
    first_row,
    name_sources,
    plan_length,
    plan_mixture,
)
from st_l0.training.pool_plan import PoolPlan, plan_pool
from st_l0.training.recipe import Recipe
from st_l0.training.sparsity_target import in_words

# What only the machine that trains can tell, all processes started.
_ELSEWHERE = ("fp16", "bf16", "tf32", "fsdp", "fsdp_config")
_DEFAULT_LENGTH = 256


@dataclass(frozen=True)
class Plan:
    """What a training run would be. ``None`` is what could not be known; ``notes`` say why.

    Attributes:
        base_model: Where the model starts.
        head: Where its masked-language-model head comes from.
        queries: What makes query weights, and what of it is trained at which learning rate.
        max_seq_length: Tokens after which a document is cut, never more than the model has positions.
        trainable_parameters: Exact number, those of the queries among them.
        sources: Each path or Hub name that the recipe reads, and where it is.
        mixture: Of each source of training data that has a weight, its examples, its share of the training,
            and how often each example is seen; where they were counted.
        documents_per_query: Documents of a training example.
        documents_per_query_from: How that is known.
        teacher_scores: Where the ranking loss gets them.
        extra_queries: How many queries a batch's documents are ranked for beside its own, out of how many.
        devices: Number of them.
        queries_at_once: Queries that the losses see together, on all devices.
        queries_per_step: Queries of an optimizer step: those at once, times the batches accumulated.
        documents_per_step: Documents of an optimizer step.
        steps: Optimizer steps; where the recipe gives epochs, the most that ``data.limit`` allows.
        length: The same in words.
        warmup_steps: Steps until the learning rate is at its peak.
        learning_rate: That peak.
        ranking: Ranking losses and their weights.
        penalty: What is penalised of the documents.
        document_regularizer_weights: λ_d at its peak for each reduction: the recipe's own, and the same
            strength in the other.
        query_regularizer_weight: λ_q at its peak.
        ramp_steps: Steps until λ is at its peak.
        target: What sparsity λ_d is moved for afterwards, how often it is measured, and what that costs.
        memory: See `Memory`.
        evaluation: What is measured while it trains, how often, and what that costs.
        notes: What could not be checked, and what else the reader should know.
    """

    base_model: str
    head: str
    queries: str
    max_seq_length: int
    trainable_parameters: int | None
    sources: tuple[tuple[str, str], ...]
    mixture: tuple[str, ...]
    documents_per_query: int
    documents_per_query_from: str
    teacher_scores: str
    extra_queries: str
    devices: int
    queries_at_once: int
    queries_per_step: int
    documents_per_step: int
    steps: int | None
    length: str
    warmup_steps: int | None
    learning_rate: float
    ranking: dict[str, float]
    penalty: str
    document_regularizer_weights: dict[str, float]
    query_regularizer_weight: float
    ramp_steps: int
    target: str
    memory: Memory | None
    evaluation: str
    notes: tuple[str, ...]


def dry_run(recipe: Recipe, *, devices: int = 1) -> Plan:
    """Check all of a recipe that can be checked without data, weights and a GPU, and add it up.

    The small files of the base model are read where they are there or can be fetched, and the first row of
    training data that is on this machine; all rows, to count them, where sources have weights. What is not
    there yet is noted, not refused.

    Args:
        recipe: What would be trained.
        devices: On how many devices.

    Raises:
        InputError: The run would be refused: by the trainer's arguments, for settings that do not go
            together, for a file that is there and cannot be used, or for a ramp longer than the training.

    Example:
        >>> from st_l0.training import load_recipe
        >>> plan = dry_run(load_recipe("l0_mask"), devices=8)
        >>> plan.queries_per_step, plan.documents_per_step, plan.steps
        (320, 640, 100000)
    """
    if devices < 1:
        raise InputError(f"devices is {devices}; give 1 or more")
    notes: list[str] = []
    loss = recipe.loss
    arguments = _arguments(recipe, notes)
    row = first_row(recipe.data)
    documents, documents_from = count_documents(recipe.data, row)
    if documents_from != GUESS:
        recipe.check_documents(documents)
    if row is not None:
        route_columns(arguments, recipe, column_names(documents, has_positive=row.has_positive))
    elif recipe.training.get("prompts") is not None:
        notes.append("training.prompts: not checked, the columns of the data are not known yet")
    base = read_base(recipe.model, notes)
    for path in (recipe.model.idf, loss.token_weights):
        if path is not None and path not in ("binary", "df"):
            check_table(path, base, notes)
    at_once = arguments.per_device_train_batch_size * devices
    if documents_from != GUESS:
        check_batch(recipe, documents, at_once)
    per_step = at_once * arguments.gradient_accumulation_steps
    mixture = plan_mixture(recipe.data, notes)
    steps, length = plan_length(recipe, arguments, devices, mixture, notes)
    max_seq_length = _sequence_length(recipe, base, notes)
    if loss.target_active_dims is not None and loss.target_active_dims < (loss.threshold or 0):
        notes.append(f"loss.target_active_dims: documents of up to {loss.threshold} active dims pay nothing")
    check_output(recipe)
    if last_complete_checkpoint(Path(recipe.output) / "checkpoints") is not None:
        notes.append(f"{recipe.output} holds an earlier run: give --resume, or another output")
    pool = None
    if recipe.teachers is not None and recipe.teachers.extra_queries:
        in_batch = arguments.per_device_train_batch_size * documents
        pool = plan_pool(recipe, documents, in_batch, devices, arguments.device.type)
    other = "pooled" if loss.reduction == "per_position" else "per_position"
    return Plan(
        base_model=recipe.model.base_model,
        head="not known" if base is None else base.head,
        queries=_queries(recipe, base, arguments.learning_rate),
        max_seq_length=max_seq_length,
        trainable_parameters=None if base is None else base.parameters + base.query_parameters,
        sources=name_sources(recipe),
        mixture=()
        if mixture is None
        else tuple(mixed_in_words(mixture, recipe.data.paths, None if steps is None else steps * per_step)),
        documents_per_query=documents,
        documents_per_query_from=documents_from,
        teacher_scores=_teacher_scores(recipe, row),
        extra_queries=_extra_queries(recipe, pool, arguments.device.type),
        devices=devices,
        queries_at_once=at_once,
        queries_per_step=per_step,
        documents_per_step=per_step * documents,
        steps=steps,
        length=length,
        warmup_steps=None if steps is None else arguments.get_warmup_steps(steps),
        learning_rate=arguments.learning_rate,
        ranking=dict(loss.ranking),
        penalty=_penalty(loss),
        document_regularizer_weights={
            loss.reduction: loss.document_regularizer_weight,
            other: convert_weight(loss.document_regularizer_weight, documents, to=other),
        },
        query_regularizer_weight=loss.query_regularizer_weight,
        ramp_steps=loss.ramp_steps,
        target="none" if loss.target is None else in_words(loss, steps, per_step * documents),
        memory=_memory(recipe, base, arguments, documents, max_seq_length, devices, pool),
        evaluation=_evaluation(recipe, steps, per_step * documents),
        notes=tuple(notes),
    )


def _arguments(recipe: Recipe, notes: list[str]) -> Any:
    """The trainer's arguments, but for those that this machine cannot check."""
    unchecked = [name for name in _ELSEWHERE if recipe.training.get(name)]
    if {"fp16", "bf16"} <= set(unchecked):
        raise InputError("training: fp16 and bf16 exclude each other: keep one")
    if unchecked and not torch.accelerator.is_available() and not recipe.training.get("use_cpu"):
        notes.append(f"training.{', training.'.join(unchecked)}: not checked here, needs a GPU")
        training = {name: value for name, value in recipe.training.items() if name not in unchecked}
        recipe = dataclasses.replace(recipe, training=training)
    return training_arguments(recipe, Path(recipe.output) / "checkpoints")


def _teacher_scores(recipe: Recipe, row: RawRow | None) -> str:
    scored = None if row is None else row.scores is not None
    check_scores(recipe, scored, "" if row is None else f"{row.place}: ")
    if recipe.teachers is None:
        if not recipe.loss.distils:
            return "none needed"
        return "in the data" if scored else "must be in the data"
    check_teachers(recipe.teachers)
    return f"live: {' + '.join(recipe.teachers.specs)}, times {recipe.teachers.scale:g}"


def _extra_queries(recipe: Recipe, pool: PoolPlan | None, device: str) -> str:
    if recipe.teachers is None or pool is None:
        return "none"
    sentences = recipe.teachers.sentence_queries
    more = f"; {sentences:,} of them sentences of documents" if sentences else ""
    return pool.in_words(recipe.teachers.extra_queries, device) + more


def _sequence_length(recipe: Recipe, base: BaseModel | None, notes: list[str]) -> int:
    wanted = recipe.model.max_seq_length or _DEFAULT_LENGTH
    positions = wanted if base is None else position_limit(base.config)
    if positions < wanted:
        notes.append(f"the model has {positions} positions: documents are cut there, not at {wanted}")
    return min(wanted, positions)


def _queries(recipe: Recipe, base: BaseModel | None, learning_rate: float) -> str:
    settings = recipe.model
    if settings.queries == "model":
        return "the model itself (siamese, not inference-free)"
    source = "the checkpoint's" if settings.idf is None else settings.idf
    if settings.queries == "table":
        return f"fixed table: {source}"
    rate = settings.query_learning_rate or learning_rate
    count = "" if base is None else f"{base.query_parameters:,} parameters "
    kind = f"trained table, from {source}" if settings.queries == "trained_table" else "learned scores"
    return f"{kind}: {count}at learning rate {rate:g}"


def _penalty(loss: Loss) -> str:
    parts: list[str] = [loss.regularizer]
    if loss.threshold is not None:
        parts.append(f"of documents with more than {loss.threshold} active dims")
    if loss.top_k is not None:
        parts.append(f"without the {loss.top_k} largest weights")
    if loss.extra_logs:
        parts.append(f"after {loss.extra_logs} more log(s)")
    if loss.token_weights is not None:
        weights = (
            "document frequency" if loss.token_weights == "df" else f"the inverse of {loss.token_weights}"
        )
        parts.append(f"times {weights}")
    return ", ".join(parts)


def _evaluation(recipe: Recipe, steps: int | None, documents_per_step: int) -> str:
    if recipe.evaluation is None:
        return "none"
    gone = [folder for folder in recipe.evaluation.collections if not Path(folder).exists()]
    if gone:
        return f"every {recipe.evaluation.steps:,} steps; what it costs is not known, {gone[0]} is not there"
    return PeriodicEvaluation(recipe.evaluation).in_words(steps, documents_per_step)


def _memory(
    recipe: Recipe,
    base: BaseModel | None,
    arguments: Any,
    documents: int,
    length: int,
    devices: int,
    pool: PoolPlan | None,
) -> Memory | None:
    if base is None:
        return None
    texts = arguments.per_device_train_batch_size * (documents + (recipe.model.queries == "model"))
    return estimate_memory(
        base,
        tokens=texts * length,
        texts=texts,
        extra_scores=0 if pool is None else pool.scores,
        pool=0 if pool is None else pool.size,
        devices=devices,
        half=bool(recipe.training.get("fp16") or recipe.training.get("bf16")),
        checkpointing=bool(arguments.gradient_checkpointing),  # by either of its two names
    )
