"""Texts of a batch one after the other through a transformers model: only its attention sees padding.

Linear layers, norms and activations, nine tenths of a transformer at the lengths of passages, work on tokens.
Where texts meet, in the attention, queries, keys and values are moved into padded places and back. So it runs
on any device, in any dtype, and gives what the padded batch gives. With flash attention sentence-transformers
sets texts one after the other by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

# Types of models that hand what they are given to their attention, and take the position of each token.
# Those of the second kind count positions of tokens, from the padding's id on; the others of places.
_FROM_PADDING_ID = {"camembert", "roberta", "xlm-roberta"}
_MODELS = {"bert", "distilbert", "electra", "modernbert", *_FROM_PADDING_ID}
_ATTENTION = "st_l0_unpadded"


class _Places(NamedTuple):
    """Where the tokens of a batch stand in its padded form.

    Attributes:
        tokens: Places of all tokens, text after text, ``(tokens,)``; row times width plus column.
        mask: Which places are tokens, bool ``(texts, width)``.
    """

    tokens: Tensor
    mask: Tensor


def can_drop_padding(model: Any) -> bool:
    """Whether a transformers model can read texts without padding: its type is known, its attention SDPA."""
    config = getattr(model, "config", None)
    return (
        getattr(config, "model_type", None) in _MODELS
        and getattr(config, "_attn_implementation", None) in ("sdpa", _ATTENTION)
        and not getattr(config, "is_decoder", False)
        and not torch.compiler.is_compiling()
    )


def use_own_attention(model: Any) -> None:
    """Let a model that `can_drop_padding` take this module's attention, which is SDPA for any batch.

    It stays, since a layer that is run again for the backward pass (gradient checkpointing) asks for it by
    name.
    """
    if model.config._attn_implementation != _ATTENTION:
        model.set_attn_implementation(_ATTENTION)


def states_without_padding(model: Any, inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Last hidden states of the tokens of a padded batch; the model's attention is ours from then on.

    Args:
        model: A model that `can_drop_padding`.
        inputs: What it takes: ``input_ids`` and ``attention_mask``, ``(texts, width)``, padded on a side.

    Returns:
        ``(tokens, hidden)``, one text after the other, and where each text begins and the last one ends,
        ``(texts + 1,)``, int32.
    """
    use_own_attention(model)
    mask = inputs["attention_mask"].bool()
    tokens = mask.flatten().nonzero().squeeze(1)
    offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).int()
    flat = {
        name: value.flatten().index_select(0, tokens).unsqueeze(0)
        for name, value in inputs.items()
        if isinstance(value, Tensor) and value.shape == mask.shape and name != "attention_mask"
    }
    if "position_ids" not in flat:
        flat["position_ids"] = _positions(model.config, mask, tokens).unsqueeze(0)
    # A text without tokens sees itself: a row without any key is NaN, in its gradient too.
    places = _Places(tokens, mask | ~mask.any(1, keepdim=True))
    hidden: Tensor = model.base_model(
        **flat, attention_mask=_no_masks(model.config), places=places, return_dict=True
    ).last_hidden_state
    return hidden.squeeze(0), offsets


def _positions(config: Any, mask: Tensor, tokens: Tensor) -> Tensor:
    if config.model_type in _FROM_PADDING_ID:
        return cast(Tensor, mask.cumsum(1).flatten()[tokens] + config.pad_token_id)
    return tokens % mask.shape[1]


def _no_masks(config: Any) -> dict[str, None] | None:
    """No mask over all tokens of a batch, for none of the kinds of layers."""
    if config.model_type == "modernbert":  # else it makes one, for layers with a window
        return dict.fromkeys(config.layer_types)
    return None


def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    places: _Places | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """SDPA; of ``(1, heads, tokens, size)`` where the places of the tokens are given."""
    if places is None:
        return _sdpa(module, query, key, value, attention_mask, **options), None
    texts, width = places.mask.shape

    def padded(states: Tensor) -> Tensor:
        _, heads, _, size = states.shape
        rows = states.squeeze(0).transpose(0, 1).reshape(-1, heads * size)
        moved = rows.new_zeros(texts * width, heads * size).index_copy(0, places.tokens, rows)
        return moved.view(texts, width, heads, size).transpose(1, 2)

    seen = places.mask[:, None, None, :]
    window = options.get("sliding_window")
    if window is not None:
        columns = torch.arange(width, device=seen.device)
        near = (columns[:, None] - columns).abs() < window
        seen = seen & near | torch.eye(width, dtype=torch.bool, device=seen.device)
    found = _sdpa(module, padded(query), padded(key), padded(value), seen, **options)
    rows = found.reshape(texts * width, -1).index_select(0, places.tokens)
    return rows.view(1, -1, *found.shape[2:]), None


def _sdpa(
    module: Any, query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None, **options: Any
) -> Tensor:
    """SDPA; half precision that is trained on a CPU goes through float32.

    The backward pass of torch's attention for CPUs takes several times as long in bfloat16, which costs
    about what the rest of the transformer gains by it.
    """
    if query.device.type != "cpu" or query.dtype is torch.float32 or not torch.is_grad_enabled():
        return sdpa_attention_forward(module, query, key, value, seen, **options)[0]
    with torch.autocast("cpu", enabled=False):
        states = (query.float(), key.float(), value.float())
        return sdpa_attention_forward(module, *states, seen, **options)[0].to(query.dtype)


AttentionInterface.register(_ATTENTION, _attention)
AttentionMaskInterface.register(_ATTENTION, sdpa_mask)
