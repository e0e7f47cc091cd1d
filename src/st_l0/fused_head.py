"""MLM head and masked max in one step, without the (documents, tokens, vocabulary) tensor.

Every activation of the SPLADE family is monotone, so it commutes with the max over tokens: the max of the
raw logits comes first, slice of the vocabulary by slice, and the activation then touches
``(documents, vocabulary)`` values only. The backward pass visits active entries only, which is exact because
the relu passes no gradient to the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Logits of one slice, in elements: 2 MiB of float32 stay in the cache of a core between matmul and max.
_SLICE_ELEMENTS = 1 << 19


@dataclass(frozen=True)
class MLMHead:
    """The two parts of a masked-language-model head.

    Attributes:
        transform: hidden states ``(..., hidden)`` to ``(..., hidden)``: dense, activation, layer norm.
        dense: the linear layer inside ``transform``.
        norm: the layer norm inside ``transform``.
        decoder: hidden to vocabulary logits, with or without bias.
    """

    transform: Callable[[Tensor], Tensor]
    dense: nn.Linear
    norm: nn.LayerNorm
    decoder: nn.Linear


def read_head(model: Any) -> MLMHead | None:
    """Find the MLM head of a transformers model; ``None`` for an architecture that is not known here.

    Known: BERT, DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT, MPNet, ModernBERT and what shares their layout.
    """
    decoder = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(decoder, nn.Linear):
        return None
    if hasattr(model, "cls") and hasattr(model.cls, "predictions"):
        transform: Any = getattr(model.cls.predictions, "transform", None)
        # MobileBERT's decoder is only a part of its last layer.
        if hasattr(transform, "LayerNorm") and transform.dense.out_features == decoder.in_features:
            return MLMHead(transform, transform.dense, transform.LayerNorm, decoder)
    if hasattr(model, "vocab_transform") and hasattr(model, "vocab_layer_norm"):
        dense, norm, activation = model.vocab_transform, model.vocab_layer_norm, model.activation
        return MLMHead(lambda hidden: norm(activation(dense(hidden))), dense, norm, decoder)
    # Where the decoder has no bias (ESM), the head adds one of its own.
    if hasattr(model, "lm_head") and hasattr(model.lm_head, "layer_norm") and decoder.bias is not None:
        dense, norm = model.lm_head.dense, model.lm_head.layer_norm
        return MLMHead(lambda hidden: norm(functional.gelu(dense(hidden))), dense, norm, decoder)
    if hasattr(model, "head") and hasattr(model.head, "norm") and hasattr(model.head, "dense"):
        return MLMHead(model.head, model.head.dense, model.head.norm, decoder)
    return None


def max_logits(hidden: Tensor, attention_mask: Tensor, decoder: nn.Linear) -> Tensor:
    """Largest logit of each vocabulary entry over the tokens of a document, floored at zero.

    Equal to ``relu(decoder(hidden)).masked_fill(~mask, 0).amax(1)``, in values and in gradients (at a tie the
    first token takes the gradient).

    Args:
        hidden: output of the head's transform, ``(documents, tokens, hidden)``.
        attention_mask: 1 for a token, 0 for padding, ``(documents, tokens)``. Whatever stands at a padded
            position, infinities included, has no influence.
        decoder: the head's last layer, ``hidden`` to ``vocabulary``.

    Returns:
        Non-negative values, ``(documents, vocabulary)``, in the dtype of ``hidden`` (under autocast in the
        autocast dtype).
    """
    mask = attention_mask.bool()
    if mask.numel() == 0:
        return hidden.new_zeros(hidden.shape[0], decoder.out_features)
    # A padded position becomes a copy of the document's first token: a repeated row cannot change a max, and
    # no pass over the logits is needed to mask them.
    first = mask.int().argmax(1)
    own_first = hidden[torch.arange(hidden.shape[0], device=hidden.device), first].unsqueeze(1)
    hidden = torch.where(mask.unsqueeze(-1), hidden, own_first)
    hidden = hidden.masked_fill(~mask.any(1)[:, None, None], 0)  # a document without tokens
    weight: Tensor = decoder.weight
    bias: Tensor | None = decoder.bias
    device_type = hidden.device.type
    if torch.is_autocast_enabled(device_type):
        dtype = torch.get_autocast_dtype(device_type)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
        bias = bias.to(dtype) if bias is not None else None
    values: Tensor = _MaxLogits.apply(hidden, weight, bias)  # type: ignore[no-untyped-call]
    return values * mask.any(1, keepdim=True)


class _MaxLogits(torch.autograd.Function):
    """relu(max over tokens of hidden @ weight.T + bias), see `max_logits`."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        documents, tokens, size = hidden.shape
        vocabulary = weight.shape[0]
        flat = hidden.reshape(-1, size)
        values = hidden.new_empty(documents, vocabulary)
        step = max(64, _SLICE_ELEMENTS // max(1, documents * tokens))
        for start in range(0, vocabulary, step):
            logits = flat @ weight[start : start + step].T
            torch.amax(logits.view(documents, tokens, -1), 1, out=values[:, start : start + step])
        if bias is not None:
            values += bias
        values.relu_()
        ctx.save_for_backward(hidden, weight, values)
        ctx.has_bias = bias is not None
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        hidden, weight, values = ctx.saved_tensors
        grad = grads[0]
        exact = torch.promote_types(hidden.dtype, torch.float32)  # sums of half precision are kept in float32
        grad_hidden = torch.zeros_like(hidden, dtype=exact)
        grad_weight = torch.zeros_like(weight, dtype=exact)
        grad_bias = weight.new_zeros(weight.shape[0], dtype=exact) if ctx.has_bias else None
        for document in range(hidden.shape[0]):
            active = values[document].nonzero().squeeze(1)
            # Which token won is worked out again, for active entries only; a bias does not change it.
            rows, states = weight[active], hidden[document]
            winner = (rows @ states.T).argmax(1)
            scale = grad[document, active].to(exact).unsqueeze(1)
            grad_hidden[document].index_add_(0, winner, scale * rows)
            grad_weight.index_add_(0, active, scale * states[winner])
            if grad_bias is not None:
                grad_bias.index_add_(0, active, scale.squeeze(1))
        bias_out = grad_bias.to(weight.dtype) if grad_bias is not None else None
        return grad_hidden.to(hidden.dtype), grad_weight.to(weight.dtype), bias_out


def activate(values: Tensor, extra_logs: int) -> Tensor:
    """SPLADE activation of non-negative maxima: log(1 + x), and ``extra_logs`` more logs (l0 activation).

    Source: SPLADE v2, arXiv 2109.10086 (0 extra logs); arXiv 2504.14839 (1 and more).
    """
    for _ in range(1 + extra_logs):
        values = values.log1p()
    return values
