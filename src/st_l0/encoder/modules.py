"""The stock modules of an encoder: built, repaired and read; `st_l0.encoder.loading` loads them.

A checkpoint holds stock classes only. An inference-free one::

    Router
      query:    SparseStaticEmbedding     tokenizer + weight table
      document: Transformer (fill-mask) -> SpladePooling

and one whose queries run the model too (siamese SPLADE)::

    Transformer (fill-mask) -> SpladePooling

What stock gets wrong is mended in the weights themselves, so that plain sentence-transformers computes the
same vectors from the saved checkpoint: special tokens weigh 0 in the table and have a logit that no text can
lift above 0, and the vocabulary of the head is cut to that of the tokenizer.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from sentence_transformers.base.modules import Router, Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import nn
from transformers import PreTrainedTokenizerBase

from st_l0.encoder.idf import check_ids
from st_l0.encoder.pretrained import PROBE, check_length, position_limit
from st_l0.errors import InputError
from st_l0.head.mlm_head import MLMHead, read_head

logger = logging.getLogger(__name__)

# Far below any logit, and inside the range of float16.
_SILENT = -1e4

# Entries of a head beyond the vocabulary, which its training found convenient: the next multiple of 64 or so.
_PADDING = 64

# Tokens of a text that is never cut; what states no length states more.
_UNLIMITED = 1 << 30

_ACTIVATIONS = ("relu", "log1p_relu", "log1p_log1p_relu", "log1p_log1p_log1p_relu")


class EncoderModules(NamedTuple):
    """The modules of an encoder; ``query`` is ``None`` where queries go through the transformer too."""

    query: SparseStaticEmbedding | None
    transformer: Transformer
    pooling: SpladePooling

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The queries' tokenizer."""
        module = self.transformer if self.query is None else self.query
        return cast(PreTrainedTokenizerBase, module.tokenizer)

    @property
    def fused_head(self) -> MLMHead | None:
        """The head, if head and pooling can be computed by `st_l0.head.mlm_head`."""
        if self.pooling.pooling_strategy != "max" or self.transformer.backend != "torch":
            return None
        return read_head(self.transformer.model)


def find_encoder_modules(modules: Sequence[nn.Module]) -> EncoderModules | None:
    """Find these modules among those of an encoder; ``None`` where either side is something else."""
    found = list(modules)
    expected: list[type] = [Transformer, SpladePooling]
    if len(found) == 1 and isinstance(found[0], Router):
        routes = found[0].sub_modules
        if not {"query", "document"} <= set(routes):
            return None
        found = [*routes["query"].children(), *routes["document"].children()]
        expected = [SparseStaticEmbedding, *expected]
    if len(found) != len(expected) or not all(map(isinstance, found, expected)):
        return None
    ordered: list[Any] = list(found)
    if len(ordered) == 3:
        return EncoderModules(*ordered)
    # Anything but a masked language model is left to stock.
    return EncoderModules(None, *ordered) if read_head(ordered[0].model) is not None else None


def encoder_modules(model: nn.Module) -> EncoderModules:
    """The modules of an encoder.

    Raises:
        InputError: Its documents go through something else than a masked language model.
    """
    modules = find_encoder_modules(list(model.children()))
    if modules is None:
        raise InputError(f"{type(model).__name__}: documents go through no masked language model")
    return modules


def activation_name(activation: str | int) -> str:
    """Name of an activation: ``"relu"`` (log(1 + relu(x))), ``"log1p_relu"`` (one more log), or k extra logs.

    Stock sentence-transformers knows the first two (k = 0 and 1); a checkpoint with k = 2 or 3 is refused by
    it, rather than read wrongly.

    Raises:
        InputError: Not a known name and not an integer from 0 to 3.
    """
    if (
        isinstance(activation, int)
        and not isinstance(activation, bool)
        and 0 <= activation < len(_ACTIVATIONS)
    ):
        return _ACTIVATIONS[activation]
    if isinstance(activation, str) and activation in _ACTIVATIONS:
        return activation
    raise InputError(
        f"activation must be 'relu', 'log1p_relu' or a number of extra logs 0-3, not {activation!r}"
    )


def extra_logs(pooling: SpladePooling) -> int:
    """Number of logs after the first one."""
    return _ACTIVATIONS.index(pooling.activation_function)


def make_pooling(activation: str | int, pooling_strategy: str = "max", **config: Any) -> SpladePooling:
    """Build a stock pooling module with 0 to 3 extra logs."""
    if pooling_strategy not in SpladePooling.SPLADE_POOLING_MODES:
        raise InputError(f"pooling must be 'max' or 'sum', not {pooling_strategy!r}")
    pooling = SpladePooling(pooling_strategy=pooling_strategy, **config)  # type: ignore[arg-type]
    pooling.activation_function = activation_name(activation)  # type: ignore[assignment]
    return pooling


def make_modules(
    transformer: Transformer, table: np.ndarray | None, activation: str | int, pooling: str = "max"
) -> list[nn.Module]:
    """Assemble query table and document encoder.

    Args:
        transformer: The document encoder, with its MLM head.
        table: Query weight of each token, ``(vocabulary,)``, the tokenizer's vocabulary; ``None`` sends
            queries through the transformer too.
        activation: See `activation_name`.
        pooling: ``"max"`` or ``"sum"`` over the tokens of a document.

    Raises:
        InputError: The sizes of head, tokenizer and table do not fit.
    """
    tokenizer: Any = text_tokenizer(transformer)
    match_vocabulary(transformer)
    size = vocabulary_size(tokenizer)
    query = None
    if table is not None:
        if not tokenizer.is_fast:
            raise InputError(
                f"{type(tokenizer).__name__} is not a fast tokenizer: save the base model with tokenizer.json"
            )
        if table.shape != (size,):
            raise InputError(
                f"the query weights have shape {table.shape}, but the tokenizer knows {size} tokens"
            )
        weight = torch.from_numpy(table.astype(np.float32, copy=True))
        query = SparseStaticEmbedding(_query_tokenizer(transformer), weight=weight, frozen=True)
    modules = EncoderModules(query, transformer, make_pooling(activation, pooling, embedding_dimension=size))
    if extra_logs(modules.pooling) > 1 and modules.fused_head is None:
        name = modules.pooling.activation_function
        raise InputError(
            f"activation {name} needs pooling 'max' and an MLM head known to st_l0.head.mlm_head"
        )
    if query is None:
        return [transformer, modules.pooling]
    silence_special_tokens(modules)
    return [Router.for_query_document(query_modules=[query], document_modules=[transformer, modules.pooling])]


def text_tokenizer(transformer: Transformer) -> PreTrainedTokenizerBase:
    """The document encoder's tokenizer."""
    return cast(PreTrainedTokenizerBase, transformer.tokenizer)


def _query_tokenizer(transformer: Transformer) -> Any:
    """A copy of the tokenizer that cuts where the positions end: a limit saves time on documents only."""
    tokenizer = copy.deepcopy(text_tokenizer(transformer))
    tokenizer.model_max_length = position_limit(transformer.model.config)
    return tokenizer


def vocabulary_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """Number of tokens that the tokenizer can produce; its ids must be 0 … n-1, as stock assumes."""
    vocabulary = tokenizer.get_vocab()
    check_ids(vocabulary)
    if max(vocabulary.values()) + 1 != len(vocabulary):
        raise InputError(
            f"the tokenizer has {len(vocabulary)} tokens but ids up to {max(vocabulary.values())}"
        )
    return len(vocabulary)


def check_head(transformer: Transformer) -> int:
    """Size of the tokenizer's vocabulary, which the head has to have too, padding apart.

    Raises:
        InputError: There is no head, or it is smaller, or larger by more than padding.
    """
    size = vocabulary_size(text_tokenizer(transformer))
    model: Any = transformer.model
    head = model.get_output_embeddings()
    if head is None:
        raise InputError(f"{type(model).__name__} has no MLM head")
    rows, known = head.weight.shape[0], getattr(model.config, "vocab_size", size)
    if rows < min(size, known):
        raise InputError(
            f"{type(model).__name__}: its head has {rows} outputs, not one for each of "
            f"{known} entries of the vocabulary (as DeBERTa's with legacy=False): give a model with a "
            "decoder over the vocabulary"
        )
    if rows < size:
        raise InputError(
            f"the tokenizer has {size} tokens but the model's head only {rows}: "
            "give the model its own tokenizer, and add tokens to the encoder (SparseEncoder.add_tokens)"
        )
    if rows > size + max(size // 10, _PADDING):
        raise InputError(
            f"the tokenizer has {size} tokens but the model's head {rows}, more than padding: "
            "give the model its own tokenizer"
        )
    return size


def match_vocabulary(transformer: Transformer) -> None:
    """Cut a padded head (ModernBERT style) to the tokenizer's vocabulary.

    Entries beyond it belong to no token, so no query can match them; but stock would compare document vectors
    of one size with query vectors of another and fail.

    Raises:
        InputError: As `check_head`.
    """
    size = check_head(transformer)
    model: Any = transformer.model
    if model.get_output_embeddings().weight.shape[0] > size:
        resize_vocabulary(model, size)


def resize_vocabulary(model: Any, size: int) -> None:
    """Cut or extend embeddings and head of a masked language model; new rows are random, new biases 0."""
    requires_grad = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    # Beside a decoder that is not tied some heads have a bias of their own, to no use, but a checkpoint holds
    # it; transformers leaves it as long as it was (RoBERTa) or puts the decoder's in its place (BERT).
    decoder = model.get_output_embeddings()
    heads: list[Any] = [one for one in model.modules() if getattr(one, "decoder", None) is decoder]
    unused = [(one, one.bias) for one in heads if getattr(one, "bias", decoder.bias) is not decoder.bias]
    model.resize_token_embeddings(size, mean_resizing=False)
    for head, bias in unused:
        cut = bias.data[:size]
        head.bias = nn.Parameter(nn.functional.pad(cut, (0, size - len(cut))))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(requires_grad.get(name, True))


def check_sides(modules: EncoderModules) -> None:
    """Refuse modules that were loaded well, but do not belong together.

    Raises:
        InputError: The head does not fit the tokenizer, the two tokenizers give a token different ids, or a
            text is cut to nothing.
    """
    check_head(modules.transformer)
    documents: Any = text_tokenizer(modules.transformer)
    check_length(
        documents.model_max_length,
        "the length of a document (max_seq_length or model_max_length)",
        least=documents.num_special_tokens_to_add() + 1,
    )
    # An unknown letter and two lengths: what fails with these (no token for the unknown, none to pad with, no
    # mask) would fail at some text, later.
    documents([PROBE, f"{PROBE} {PROBE}"], padding=True, truncation=True, return_tensors="pt")[
        "attention_mask"
    ]
    if modules.query is None:
        return
    check_length(modules.tokenizer.model_max_length, "the length of a query (model_max_length)")
    modules.tokenizer.tokenize(PROBE)
    queries, known = modules.tokenizer.get_vocab(), documents.get_vocab()
    if queries != known:
        token = min(token for token in {*queries, *known} if queries.get(token) != known.get(token))
        raise InputError(
            f"token {token!r} is number {queries.get(token)} of the queries' tokenizer, but number "
            f"{known.get(token)} of the documents': give both sides the same tokenizer"
        )


def set_sizes(modules: EncoderModules) -> None:
    """Set what a checkpoint may leave open, and correct what it states beyond what the model has.

    The number of dims is that of the head's outputs (stock learns it from the first text, and gives another
    number before), and no text is longer than the model has positions.
    """
    transformer: Any = modules.transformer
    modules.pooling.embedding_dimension = transformer.model.get_output_embeddings().weight.shape[0]
    limit = position_limit(transformer.model.config)
    length = transformer.max_seq_length
    if length is None or (
        isinstance(length, int) and length > limit
    ):  # `check_sides` refuses what is no number
        transformer.max_seq_length = limit


def state_length(tokenizer: Any) -> None:
    """Have all files of a tokenizer state one length, that of ``model_max_length``, and no padding.

    They would otherwise keep what a call has set, some time; other programs cut and pad by that.
    """
    limit = tokenizer.model_max_length
    if "max_length" in tokenizer.init_kwargs:
        tokenizer.init_kwargs["max_length"] = limit
    if tokenizer.is_fast:
        plain = tokenizer.backend_tokenizer
        plain.no_padding()
        if limit < _UNLIMITED:
            plain.enable_truncation(limit, direction=tokenizer.truncation_side)
        else:
            plain.no_truncation()


@torch.no_grad()
def silence_special_tokens(modules: EncoderModules) -> None:
    """Take the special tokens out of both sides, in the weights, and clip negative query weights to 0.

    A head without bias cannot be silenced; its special dims stay in the document vectors, where no query can
    match them.
    """
    # Unknown words share [UNK], which is special: they weigh nothing.
    weight = cast(SparseStaticEmbedding, modules.query).weight
    weight.clamp_(min=0)
    weight[special_ids(modules.tokenizer, len(weight))] = 0
    decoder = modules.transformer.model.get_output_embeddings()
    if getattr(decoder, "bias", None) is None:
        _tell_no_bias(type(modules.transformer.model).__name__)
        return
    decoder.bias[special_ids(text_tokenizer(modules.transformer), len(decoder.bias))] = _SILENT


@cache
def _tell_no_bias(name: str) -> None:  # once, however often such a model is put together
    logger.warning("%s: the MLM head has no bias, special tokens stay in the vectors", name)


def special_ids(tokenizer: PreTrainedTokenizerBase, size: int) -> list[int]:
    """Ids of the special tokens, as far as a table of ``size`` entries has them."""
    # A token that was added after the weights were made has none.
    return [token for token in tokenizer.all_special_ids if token < size]
