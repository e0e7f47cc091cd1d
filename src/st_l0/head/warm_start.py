"""A closed-form start for the head of a base model that has none (MiniLM, E5, GTE …).

A fresh head needs a long masked-language-model phase before a document activates its own words. This start
takes seconds instead: ridge regression maps the last hidden state of each token onto the token's own
mean-centred input embedding, and the map goes into the head's dense layer, so that with the tied decoder the
token itself has the largest logit nearly everywhere. Two details make a linear map fit through
``LayerNorm(gelu(dense(x)))``: the dense bias gets a constant of 8, where gelu(x + 8) ≈ x + 8, and the layer
norm takes the constant out again, and with it any factor: the map is stretched, so that what it gives is not
lost beside the constant in half precision. The decoder's bias starts low, so that the first documents are
already sparse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor

from st_l0.errors import InputError
from st_l0.head.mlm_head import read_head
from st_l0.utils.devices import as_double
from st_l0.utils.inputs import text_batches

_GELU_SHIFT = 8.0
_RIDGE = 1e-2  # of the mean squared hidden state
# Standard deviation that the map is stretched to, and what the smallest sum with the shift stays above: there
# gelu(x) is x to 1 part in 1,000. In bfloat16 8 has steps of 1/16.
_SPREAD, _LOWEST = 0.5, 3.0


@torch.no_grad()
def warm_start_head(
    transformer: Transformer,
    texts: Iterable[str],
    *,
    tokens: int = 70_000,
    decoder_bias: float = -8.0,
    batch_size: int = 32,
) -> None:
    """Set dense layer, layer norm and decoder bias of the MLM head; the decoder stays tied to the embeddings.

    Args:
        transformer: A fill-mask `Transformer` with a fresh head; changed in place.
        texts: Running text of the kind to be indexed; read until ``tokens`` tokens were seen.
        tokens: How many tokens to fit on.
        decoder_bias: Start of the decoder's bias. On MiniLM -8 leaves some 660 active dims a document at the
            first steps, -5 some 5,500.
        batch_size: Texts a forward pass.

    Raises:
        InputError: The head is not of a known kind, one of ``texts`` is no string, or they hold fewer tokens
            than the hidden size.
    """
    model: Any = transformer.model
    tokenizer: Any = transformer.tokenizer
    head = read_head(model)
    embeddings = model.get_input_embeddings().weight
    if head is None or head.dense.bias is None or head.decoder.bias is None:
        raise InputError(f"{type(model).__name__}: no closed-form start for this kind of MLM head")
    if head.decoder.weight.shape[1] != embeddings.shape[1] or head.decoder.weight is not embeddings:
        raise InputError(
            f"{type(model).__name__}: a closed-form start needs a decoder tied to the embeddings"
        )

    model.eval()
    states, ids = [], []
    seen = 0
    for batch in text_batches(texts, batch_size):
        length = min(128, transformer.max_seq_length or 128)
        features = tokenizer(batch, padding=True, truncation=True, max_length=length, return_tensors="pt").to(
            model.device
        )
        hidden = model.base_model(**features).last_hidden_state.float()
        special = torch.tensor(tokenizer.all_special_ids, device=model.device)
        own = features["attention_mask"].bool() & ~torch.isin(features["input_ids"], special)
        states.append(hidden[own])
        ids.append(features["input_ids"][own])
        seen += len(ids[-1])
        if seen >= tokens:
            break
    size = embeddings.shape[1]
    if seen < size:
        raise InputError(f"a warm start needs at least {size} tokens of text, but the texts hold {seen}")

    fitted = torch.cat(states)
    weight, bias = _ridge(fitted, torch.cat(ids), embeddings.float())
    stretch = _stretch(fitted @ weight.T + bias)
    head.dense.weight.copy_(weight * stretch)
    head.dense.bias.copy_(bias * stretch + _GELU_SHIFT)
    head.norm.weight.fill_(1.0)
    if head.norm.bias is not None:
        head.norm.bias.zero_()
    head.decoder.bias.fill_(decoder_bias)


def _stretch(values: Tensor) -> float:
    """Factor that gives values the spread wanted, as far as the smallest of them allows."""
    room = (_GELU_SHIFT - _LOWEST) / max(-values.min().item(), torch.finfo(values.dtype).tiny)
    return min(_SPREAD / values.std().item(), room)


def _ridge(states: Tensor, ids: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted ridge regression of ``(tokens, hidden)`` states onto centred embeddings: weight and bias."""
    targets = as_double((embeddings - embeddings.mean(0))[ids])
    counts = torch.bincount(ids, minlength=len(embeddings))[ids]
    weights = as_double(counts).rsqrt()  # a frequent token must not decide the map alone
    total = weights.sum()
    states = as_double(states)
    state_mean = (weights @ states) / total
    target_mean = (weights @ targets) / total
    x, y = states - state_mean, targets - target_mean
    gram = x.T @ (weights[:, None] * x)
    gram.diagonal().add_(_RIDGE * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, x.T @ (weights[:, None] * y)).T
    return solution.float(), (target_mean - solution @ state_mean).float()
