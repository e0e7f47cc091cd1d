"""The MLM head of a model in parts: transform, largest logit of each entry, activation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.head.max_logits import flat_max_logits, max_logits, without_padding

__all__ = [
    "MLMHead",
    "activate",
    "bare_model",
    "flat_max_logits",
    "max_logits",
    "read_head",
    "without_padding",
]


@dataclass(frozen=True)
class MLMHead:
    """The two parts of a masked-language-model head.

    Attributes:
        transform: Hidden states ``(..., hidden)`` to ``(..., hidden)``: dense, activation, layer norm; under
            autocast too in the precision of its weights, see `unrounded`.
        dense: The linear layer inside ``transform``.
        norm: The layer norm inside ``transform``.
        decoder: Hidden to vocabulary logits, with or without bias.
    """

    transform: Callable[[Tensor], Tensor]
    dense: nn.Linear
    norm: nn.LayerNorm
    decoder: nn.Linear


def bare_model(model: Any) -> Any:
    """The transformers model inside what peft's ``get_peft_model`` puts around it; it has the adapter too.

    Raises:
        InputError: The adapter is none of the model's layers but stands before the text, as in prompt tuning.
    """
    if not hasattr(model, "get_base_model"):
        return model
    if model.active_peft_config.is_prompt_learning:
        kind = type(model.active_peft_config).__name__
        raise InputError(f"{kind} puts tokens before the text, which weigh too: give an adapter such as LoRA")
    return model.get_base_model()


def read_head(model: Any) -> MLMHead | None:
    """Find the MLM head of a transformers model; ``None`` for an architecture that is not known here.

    Known: BERT, DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT, MPNet, ModernBERT and what shares their layout.
    """
    model = bare_model(model)
    decoder = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if not isinstance(decoder, nn.Linear):
        return None
    if hasattr(model, "cls") and hasattr(model.cls, "predictions"):
        transform: Any = getattr(model.cls.predictions, "transform", None)
        # MobileBERT's decoder is only a part of its last layer.
        if hasattr(transform, "LayerNorm") and transform.dense.out_features == decoder.in_features:
            return MLMHead(
                unrounded(transform, transform.dense), transform.dense, transform.LayerNorm, decoder
            )
    if hasattr(model, "vocab_transform") and hasattr(model, "vocab_layer_norm"):
        dense, norm, activation = model.vocab_transform, model.vocab_layer_norm, model.activation
        return MLMHead(unrounded(lambda hidden: norm(activation(dense(hidden))), dense), dense, norm, decoder)
    # Where the decoder has no bias (ESM), the head adds one of its own.
    if hasattr(model, "lm_head") and hasattr(model.lm_head, "layer_norm") and decoder.bias is not None:
        dense, norm = model.lm_head.dense, model.lm_head.layer_norm
        return MLMHead(
            unrounded(lambda hidden: norm(functional.gelu(dense(hidden))), dense), dense, norm, decoder
        )
    if hasattr(model, "head") and hasattr(model.head, "norm") and hasattr(model.head, "dense"):
        return MLMHead(unrounded(model.head, model.head.dense), model.head.dense, model.head.norm, decoder)
    return None


def unrounded(transform: Callable[[Tensor], Tensor], dense: nn.Linear) -> Callable[[Tensor], Tensor]:
    """A transform that autocast leaves alone.

    The layer norm takes a constant out of what the dense layer gives, but does not bring back what was
    rounded away beside it. After a closed-form start the constant is 8, where bfloat16 has steps of 1/16, and
    a sixth of the active dims were others.

    Args:
        transform: Hidden states to hidden states.
        dense: Its linear layer, whose precision it is computed in.
    """

    def exact(hidden: Tensor) -> Tensor:
        device = hidden.device.type
        if not torch.is_autocast_enabled(device):
            return transform(hidden)
        with torch.autocast(device, enabled=False):
            return transform(hidden.to(dense.weight.dtype))

    return exact


def activate(values: Tensor, extra_logs: int) -> Tensor:
    """SPLADE activation of non-negative maxima: log(1 + x), and ``extra_logs`` more logs (l0 activation).

    Source: SPLADE v2, arXiv 2109.10086 (0 extra logs); arXiv 2504.14839 (1 and more).
    """
    for _ in range(1 + extra_logs):
        values = values.log1p()
    return values
