"""The base model of a dry run: its small files, what does not go with them, and the memory it takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.idf import read_idf
from st_l0.encoder.modules import vocabulary_size
from st_l0.encoder.pretrained import (
    ForeignCodeError,
    check_warm_start,
    has_mlm_head,
    layout,
    load_config,
    loading_errors,
    refusing_code,
)
from st_l0.encoder.structure import document_folder
from st_l0.errors import InputError
from st_l0.training.checks import is_trained_encoder
from st_l0.training.recipe import Model


@dataclass(frozen=True)
class BaseModel:
    """What the small files of a base model say.

    Attributes:
        config: The transformers configuration.
        tokenizer: ``None`` where it cannot be reached.
        head: Where the masked-language-model head comes from.
        parameters: Parameters of the document encoder; all of them are trained.
        query_parameters: What is trained of the query side.
        fixed: Numbers in tables that are not trained.
    """

    config: Any
    tokenizer: Any
    head: str
    parameters: int
    query_parameters: int
    fixed: int


@dataclass(frozen=True)
class Memory:
    """Bytes on each device; what the libraries and live teachers take is not in it.

    Attributes:
        weights: Parameters and fixed tables in float32.
        gradients: Of what is trained, in float32; twice that where several devices exchange them.
        optimizer: The two averages of AdamW.
        activations: An estimate, see `activation_bytes`; ``None`` for an architecture of unknown sizes.
        pool: About what the pool of extra queries takes, 0 without one; ``None`` where that is not known.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int | None
    pool: int | None = 0

    @property
    def total(self) -> int:
        """Their sum."""
        known = self.weights + self.gradients + self.optimizer
        return known + (self.activations or 0) + (self.pool or 0)


def read_base(settings: Model, notes: list[str]) -> BaseModel | None:
    """Read the configuration and the tokenizer of a base model, and count its parameters.

    Args:
        settings: The section of the recipe.
        notes: Gets a line for each thing that could not be looked at.

    Returns:
        ``None`` where the model cannot be reached, or is not there yet.

    Raises:
        InputError: it is there, but damaged, no masked language model, or does not go with the settings.
    """
    name, hub_options = settings.base_model, HubOptions(trust_remote_code=settings.trust_remote_code)
    loading = hub_options.for_transformers()
    try:
        kind = layout(name, hub_options)
        folder = document_folder(name, hub_options) if kind == "sparse-encoder" else ""
        with loading_errors(name, hub_options):
            config = (
                load_config(name, hub_options)
                if not folder
                else AutoConfig.from_pretrained(name, subfolder=folder, **loading)
            )
    except ForeignCodeError:
        raise
    except (OSError, ValueError) as error:
        if isinstance(error, InputError) and Path(name).is_dir():
            raise
        if Path(name).is_dir():
            raise InputError(f"{name}: cannot be read ({error}): restore the checkpoint") from error
        notes.append(f"config of {name} not reachable: sizes not checked")
        return None
    try:
        with torch.device("meta"), refusing_code(name):  # shapes without numbers
            model = AutoModelForMaskedLM.from_config(config, trust_remote_code=settings.trust_remote_code)
    except ForeignCodeError:
        raise
    except ValueError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{name} is no masked language model known to transformers: {reason}") from error
    size = config.vocab_size
    try:
        with refusing_code(name):
            tokenizer: Any = AutoTokenizer.from_pretrained(name, subfolder=folder, **loading)
        size = vocabulary_size(tokenizer)
    except ForeignCodeError:
        raise
    except (OSError, ValueError):
        tokenizer = None
        notes.append(f"tokenizer of {name} not reachable: tables not checked")
    if size < config.vocab_size:  # as the encoder does, see `st_l0.encoder.modules.match_vocabulary`
        with torch.device("meta"):
            model.resize_token_embeddings(size)
    head = _check_kind(settings, kind, config, hub_options, notes)
    hidden = model.get_input_embeddings().weight.shape[1]
    trained = {"trained_table": size, "learned_scores": hidden + 1}.get(settings.queries, 0)
    fixed = {"table": size, "learned_scores": size * hidden}.get(settings.queries, 0)
    return BaseModel(config, tokenizer, head, sum(p.numel() for p in model.parameters()), trained, fixed)


def check_table(path: str, base: BaseModel | None, notes: list[str]) -> None:
    """Read a table of token weights, where it and the tokenizer are there.

    Raises:
        InputError: the table is there and cannot be used, see `st_l0.encoder.idf.read_idf`.
    """
    if not Path(path).exists():
        notes.append(f"{path}: not there yet")
    elif base is None or base.tokenizer is None:
        notes.append(f"{path}: there, but not checked without the tokenizer")
    else:
        read_idf(Path(path), base.tokenizer)


def estimate_memory(
    base: BaseModel,
    *,
    tokens: int,
    texts: int,
    extra_scores: int,
    pool: int | None,
    devices: int,
    half: bool,
    checkpointing: bool,
) -> Memory:
    """Memory of a training with AdamW on each device; arguments as in `Memory` and `activation_bytes`."""
    trained = base.parameters + base.query_parameters
    activations = activation_bytes(
        base.config, tokens, texts, extra_scores, half=half, checkpointing=checkpointing
    )
    if activations is not None and half:
        activations += 2 * base.parameters  # the copies that half precision computes with
    return Memory(
        weights=4 * (trained + base.fixed),
        gradients=4 * trained * (2 if devices > 1 else 1),
        optimizer=8 * trained,
        activations=activations,
        pool=pool,
    )


def activation_bytes(
    config: Any, tokens: int, texts: int, extra_scores: int = 0, *, half: bool, checkpointing: bool
) -> int | None:
    """Estimate what a forward pass keeps for the backward pass, in bytes.

    With hidden size h, feed-forward size f and vocabulary V, an encoder of BERT's shape keeps ``8 h + 2 f``
    floats a token and layer (``26 h + 4 f`` bytes in half precision), embeddings and head keep ``5 h`` floats
    a token, vectors, activation and penalty ``6 V`` floats a text, and the divergence 6 floats for each
    extra query and document. Attention is taken to keep no scores and dropout no masks worth counting, as the
    fused kernels of a GPU do. With gradient checkpointing a layer keeps its input, and one layer at a time is
    whole.

    Args:
        config: The transformers configuration.
        tokens: Tokens of a batch on one device, as many as there can be.
        texts: Texts of that batch which go through the model.
        extra_scores: Scores of extra queries with documents.
        half: Whether fp16 or bf16 is on.
        checkpointing: Whether gradient checkpointing is on.

    Returns:
        The estimate, ``None`` where the configuration does not name the sizes.
    """
    hidden, layers = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    inner = getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", None)
    if not (hidden and layers and inner):
        return None
    layer = 26 * hidden + 4 * inner if half else 4 * (8 * hidden + 2 * inner)
    kept = layer + layers * 4 * hidden if checkpointing else layers * layer
    return int(tokens * (kept + 4 * 5 * hidden) + 6 * 4 * (texts * config.vocab_size + extra_scores))


def _check_kind(settings: Model, kind: str, config: Any, hub_options: HubOptions, notes: list[str]) -> str:
    """Refuse what the run would refuse; gives where the head comes from."""
    name = settings.base_model
    if is_trained_encoder(settings, kind):
        return "of the trained encoder"
    warm_start = f"closed-form start from {settings.warm_start}"
    named = any(architecture.endswith("ForMaskedLM") for architecture in config.architectures or ())
    if not named and not Path(name).is_dir():  # looking for it would download the weights
        if settings.warm_start is not None:
            return warm_start
        notes.append(f"config of {name} names no MLM head: if the weights have none, give model.warm_start")
        return "not named by the config"
    headless = not named and not has_mlm_head(name, hub_options)
    check_warm_start(name, headless=headless, given=settings.warm_start is not None)
    return warm_start if headless else "its own"
