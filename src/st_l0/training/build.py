"""From a recipe to the parts of its training: model, loss, teachers, data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from st_l0.data import TrainingData, choose_sentences, open_texts, read_documents, read_training_data
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.idf import read_idf
from st_l0.encoder.learned_queries import fix_query_table, train_query_table, trained_parameter
from st_l0.encoder.modules import encoder_modules
from st_l0.encoder.pretrained import layout, position_limit
from st_l0.encoder.sparse_encoder import SparseEncoder
from st_l0.errors import InputError
from st_l0.losses import (
    DFFlopsLoss,
    DocumentFrequencyWeights,
    FlopsLoss,
    IDFFlopsLoss,
    InfoNCELoss,
    KLDivergenceLoss,
    L0ActivationFlopsLoss,
    L0MaskFlopsLoss,
    L1Loss,
    MarginMSELoss,
    SparseRetrievalLoss,
    WeightedRankingLoss,
    inverse,
)
from st_l0.losses.regularizers import Regularizer
from st_l0.training.checks import check_scores, check_teachers, is_trained_encoder
from st_l0.training.data_settings import Data
from st_l0.training.loss_settings import Loss
from st_l0.training.recipe import Recipe
from st_l0.utils.distributed import rank
from st_l0.utils.progress import write

if TYPE_CHECKING:
    from st_l0.teachers import EnsembleTeacher, QueryPool

_REGULARIZERS = {"flops": FlopsLoss, "l1": L1Loss}


def read_data(settings: Data) -> TrainingData:
    """Read the training data that a recipe names."""
    sources: dict[str, Any] = {}
    if settings.corpus is not None and settings.queries is not None:
        options: dict[str, Any] = {"repair_latin1": settings.repair_latin1, "columns": settings.columns}
        sources["corpus"] = open_texts(settings.corpus, "corpus", **options)
        sources["queries"] = open_texts(settings.queries, "queries", **options)
    return read_training_data(
        settings.paths,
        weights=settings.weights,
        columns=settings.columns,
        documents_per_query=settings.documents_per_query,
        score_scale=settings.score_scale,
        limit=settings.limit,
        **sources,
    )


def build_model(recipe: Recipe) -> SparseEncoder:
    """Load the checkpoint, or start an encoder from the masked language model, that the recipe names.

    Raises:
        InputError: settings that do not go with the kind of ``base_model``.
    """
    settings = recipe.model
    kind = layout(settings.base_model, HubOptions())
    trust_remote_code = settings.trust_remote_code
    siamese = settings.queries == "model"
    if is_trained_encoder(settings, kind):
        model = SparseEncoder.from_pretrained(
            settings.base_model,
            activation=settings.activation,
            inference_free=not siamese,
            trust_remote_code=trust_remote_code,
        )
        if siamese and model.inference_free:
            raise InputError(f"{settings.base_model} is inference-free: model.queries cannot be 'model'")
        if settings.max_seq_length is not None:
            modules = encoder_modules(model)
            positions = position_limit(modules.transformer.model.config)
            model.max_seq_length = min(settings.max_seq_length, positions)
        return _with_trained_queries(model, settings.queries)
    texts = None
    if settings.warm_start is not None:
        texts = (document.text for document in read_documents(settings.warm_start, id_field=""))
    model = SparseEncoder.from_mlm(
        settings.base_model,
        idf="binary" if settings.queries == "learned_scores" else settings.idf,
        activation="relu" if settings.activation is None else settings.activation,
        pooling=settings.pooling or "max",
        max_seq_length=settings.max_seq_length or 256,
        warm_start=texts,
        punctuation=settings.punctuation,
        trust_remote_code=trust_remote_code,
    )
    return _with_trained_queries(model, settings.queries)


def _with_trained_queries(model: SparseEncoder, queries: str) -> SparseEncoder:
    if queries in ("trained_table", "learned_scores"):
        train_query_table(encoder_modules(model), queries)
    elif queries == "table":  # whatever the checkpoint says: stock's default is a table that is trained
        fix_query_table(encoder_modules(model))
    return model


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


def build_loss(recipe: Recipe, model: SparseEncoder, documents_per_query: int) -> SparseRetrievalLoss:
    """Build the loss that the recipe describes."""
    settings = recipe.loss
    return SparseRetrievalLoss(
        model,
        _ranking(settings),
        _document_regularizer(settings, model, documents_per_query),
        settings.document_regularizer_weight,
        query_regularizer=_REGULARIZERS[settings.regularizer]()
        if settings.query_regularizer_weight
        else None,
        query_regularizer_weight=settings.query_regularizer_weight,
        ramp_steps=settings.ramp_steps,
    )


def _ranking(settings: Loss) -> WeightedRankingLoss:
    chosen: dict[str, Any] = {}
    if settings.in_batch_negatives is not None:
        chosen["in_batch_negatives"] = settings.in_batch_negatives
    losses: dict[str, Any] = {
        "infonce": lambda: InfoNCELoss(settings.temperature, **chosen),
        "kl": lambda: KLDivergenceLoss(settings.temperature, **chosen),
        "margin_mse": lambda: MarginMSELoss(**chosen),
    }
    return WeightedRankingLoss({name: (losses[name](), weight) for name, weight in settings.ranking.items()})


def _document_regularizer(settings: Loss, model: SparseEncoder, documents_per_query: int) -> Regularizer:
    """The class of the method that the recipe names, or the family's where it combines several."""
    size = cast(int, model.get_embedding_dimension())
    positions = documents_per_query if settings.reduction == "per_position" else 1
    df: dict[str, Any] = {
        "alpha": settings.df_alpha,
        "beta": settings.df_beta,
        "refresh_steps": settings.df_refresh_steps,
    }
    idf: Tensor | None = None
    if settings.token_weights is not None and settings.token_weights != "df":
        idf = torch.from_numpy(read_idf(Path(settings.token_weights), encoder_modules(model).tokenizer))
    options: dict[str, Any] = {
        "threshold": settings.threshold,
        "top_k": settings.top_k,
        "extra_logs": settings.extra_logs or None,
        "token_weights": settings.token_weights,
    }
    options = {name: value for name, value in options.items() if value is not None}
    if settings.regularizer == "flops":
        match list(options):
            case ["threshold"]:
                return L0MaskFlopsLoss(options["threshold"], positions=positions)
            case ["extra_logs"]:
                return L0ActivationFlopsLoss(options["extra_logs"], positions=positions)
            case ["token_weights"]:
                if idf is not None:
                    return IDFFlopsLoss(idf, positions=positions)
                return DFFlopsLoss(size, **df, positions=positions)
    if "token_weights" in options:
        options["token_weights"] = DocumentFrequencyWeights(size, **df) if idf is None else inverse(idf)
    return _REGULARIZERS[settings.regularizer](**options, positions=positions)


def build_teacher(recipe: Recipe, model: SparseEncoder, data: TrainingData) -> EnsembleTeacher | None:
    """Load the live teachers, and check that scores come from one place, if they are needed.

    Raises:
        InputError: no scores for a loss that distils, or scores from two places; a teacher that cannot be
            loaded; a sparse teacher of another vocabulary than the model's.
    """
    settings = recipe.teachers
    check_scores(recipe, data.scored)
    if settings is None:
        return None
    check_teachers(settings)
    from st_l0.teachers import EnsembleTeacher, load_teacher

    device = str(model.device)
    options: dict[str, Any] = {
        "batch_size": settings.batch_size,
        "trust_remote_code": settings.trust_remote_code,
    }
    teachers = [
        load_teacher(spec, device=device, prompts=prompts, **options)
        for spec, prompts in zip(settings.specs, settings.prompts, strict=True)
    ]
    vocabulary = encoder_modules(model).tokenizer.get_vocab()
    for spec, teacher in zip(settings.specs, teachers, strict=True):
        if teacher.vocabulary is not None and teacher.vocabulary != vocabulary:
            raise InputError(
                f"teacher {spec} has another vocabulary ({len(teacher.vocabulary)} tokens) than the model "
                f"({len(vocabulary)}): let st-l0 teach write its scores, and train on those"
            )
    return EnsembleTeacher(teachers, settings.scale, settings.weights)


def build_pool(
    recipe: Recipe,
    teacher: EnsembleTeacher | None,
    model: SparseEncoder,
    data: TrainingData,
    device: torch.device,
) -> QueryPool | None:
    """Embed queries and documents of the data for the batches to draw from, if the recipe asks for that.

    ``device`` is that of the training, to which the trainer moves the model later.

    Raises:
        InputError: a teacher that reads query and document together.
    """
    if recipe.teachers is None or teacher is None or not recipe.teachers.extra_queries:
        return None
    from st_l0.teachers import QueryPool

    queries, modules = data.queries(), encoder_modules(model)
    if recipe.teachers.sentence_queries:
        queries += _sentences(recipe, teacher, data, queries)
    table: Any = modules.query
    fixed = None if trained_parameter(modules) is not None else table.weight.detach().clone().to(device)
    pool = QueryPool(
        teacher,
        queries,
        data.documents(),
        recipe.teachers.extra_queries,
        tokens=model.query_tokens,
        weights=lambda: table.weight if fixed is None else fixed,
        device=device,
    )
    write(
        f"extra queries: {pool.queries:,} of {len(queries):,}, {pool.documents:,} documents, "
        f"{pool.nbytes / 2**30:.2f} GiB on {device}"
    )
    return pool


def _sentences(recipe: Recipe, teacher: EnsembleTeacher, data: TrainingData, known: list[str]) -> list[str]:
    """Sentences of the training documents for the pool, all of which every teacher can embed."""
    from st_l0.teachers.stored_vectors import VectorTeacher

    stored = [member for member in teacher.teachers if isinstance(member, VectorTeacher)]
    number = cast(Any, recipe.teachers).sentence_queries

    def usable(texts: list[str]) -> Any:
        return np.logical_and.reduce([member.knows(texts, "query") for member in stored])

    found = choose_sentences(
        data.documents(), number, seed=recipe.seed, others=set(known), usable=usable if stored else None
    )
    if len(found) < number:
        names = " and ".join(member.name for member in stored)
        said = f"teachers.sentence_queries is {number:,}, and the training documents have {len(found):,}"
        said += f" of which {names} hold vectors as queries" if stored else ""
        if not found:
            raise InputError(
                f"{said}: leave it out" + (", or let write_vectors embed some" if stored else "")
            )
        if rank() == 0:
            write(said)
    return found
