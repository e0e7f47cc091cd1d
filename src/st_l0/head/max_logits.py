"""Largest logit of each vocabulary entry over the tokens of a document, without the logits.

Every activation of the SPLADE family is monotone, so it commutes with the max over tokens: the max of the
raw logits comes first, slice of the vocabulary by slice, and the activation then touches
``(documents, vocabulary)`` values only. The backward pass visits active entries only, which is exact because
the relu passes no gradient to the others.

On the CPU `st_l0.head.screening` first proves most entries inactive, where it can. On a GPU one kernel does
it all (`st_l0.head.triton_kernels`).
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from st_l0.head import screening
from st_l0.head.packing import PackedTokens

# Tokens and elements of the decoder from which screening pays for rounding the decoder.
_SCREENED_TOKENS, _SCREENED_WEIGHTS = 192, 1 << 20
# One entry in so many shows how many a whole screening would leave to compute.
_SAMPLE = 32
# Logits of entries that are computed at a time.
_EXACT_ELEMENTS = 1 << 19


def max_logits(hidden: Tensor, attention_mask: Tensor, decoder: nn.Linear) -> Tensor:
    """Largest logit of each vocabulary entry over the tokens of a document, floored at zero.

    Equal to ``relu(decoder(hidden)).masked_fill(~mask, 0).amax(1)``, in values and in gradients (at a tie the
    first token takes the gradient).

    Args:
        hidden: Output of the head's transform, ``(documents, tokens, hidden)``.
        attention_mask: 1 for a token, 0 for padding, ``(documents, tokens)``. Whatever stands at a padded
            position, infinities included, has no influence.
        decoder: The head's last layer, ``hidden`` to ``vocabulary``.

    Returns:
        Non-negative values, ``(documents, vocabulary)``, in the dtype of ``hidden`` (under autocast in the
        autocast dtype).
    """
    values: Tensor = flat_max_logits(*without_padding(hidden, attention_mask), decoder)
    return values


@torch.compiler.disable  # type: ignore[untyped-decorator]
def without_padding(hidden: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Drop padding.

    Args:
        hidden: ``(documents, tokens, hidden)``.
        attention_mask: 1 for a token, 0 for padding, ``(documents, tokens)``.

    Returns:
        The tokens of all documents one after the other, ``(tokens, hidden)``, and where each document begins
        and the last one ends, ``(documents + 1,)``, int32.
    """
    mask = attention_mask.bool()
    offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0)).int()
    rows = hidden.reshape(-1, hidden.shape[-1])
    if not mask.all():
        rows = rows.index_select(0, mask.flatten().nonzero().squeeze(1))
    return rows, offsets


@torch.compiler.disable  # type: ignore[untyped-decorator]
def flat_max_logits(hidden: Tensor, offsets: Tensor, decoder: nn.Linear) -> Tensor:
    """`max_logits` of documents without padding.

    Args:
        hidden: Tokens of all documents one after the other, ``(tokens, hidden)``.
        offsets: Where each document begins and the last one ends, ``(documents + 1,)``.
        decoder: The head's last layer, ``hidden`` to ``vocabulary``.

    Returns:
        As `max_logits`; zeros for a document without tokens.
    """
    device = hidden.device.type
    if not torch.is_autocast_enabled(device):
        return _flat_max_logits(hidden, offsets, decoder.weight, decoder.bias)
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        # Where products of half precision are not summed in float32, which the CPU does not do, a logit that
        # is near 0 for a bias of -8 is rounded to a 16th.
        product = decoder.weight.dtype if device == "cpu" else dtype
        weight = decoder.weight.to(product)
        return _flat_max_logits(hidden.to(product), offsets, weight, decoder.bias).to(dtype)


def _flat_max_logits(hidden: Tensor, offsets: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    trained = torch.is_grad_enabled() and any(
        one is not None and one.requires_grad for one in (hidden, weight, bias)
    )
    kernels = _kernels(hidden)
    if kernels is not None:
        return _ByKernels.apply(hidden.contiguous(), weight, bias, offsets.int(), kernels, trained)  # type: ignore[no-untyped-call, no-any-return]
    lengths = offsets.diff().tolist()
    return _BySlices.apply(hidden, weight, bias, lengths, trained)  # type: ignore[no-untyped-call, no-any-return]


def _kernels(hidden: Tensor) -> Any:
    """The module of the GPU kernels, where they can take these hidden states."""
    if not hidden.is_cuda or find_spec("triton") is None:
        return None
    from st_l0.head import triton_kernels as head_kernels

    return head_kernels if head_kernels.supports(hidden) else None


class _ByKernels(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        offsets: Tensor,
        kernels: Any,
        trained: bool,
    ) -> Tensor:
        values, winners = kernels.forward(hidden, weight, bias, offsets, needs_winners=trained)
        if trained:
            ctx.save_for_backward(hidden, weight, offsets, values, winners)
        ctx.kernels, ctx.bias_dtype = kernels, None if bias is None else bias.dtype
        return values  # type: ignore[no-any-return]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, offsets, values, winners = ctx.saved_tensors
        needs_bias = ctx.needs_input_grad[2]
        found = ctx.kernels.backward(grad, values, winners, hidden, weight, offsets, needs_bias)
        of_hidden, of_weight, of_bias = found
        return of_hidden, of_weight, None if of_bias is None else of_bias.to(ctx.bias_dtype), None, None, None


class _Active(NamedTuple):
    """Entries above zero: of which document, which entry, and which row of ``hidden`` won."""

    documents: Tensor
    entries: Tensor
    winners: Tensor


def _no_entries(hidden: Tensor) -> _Active:
    return _Active(*torch.empty(3, 0, dtype=torch.long, device=hidden.device))


class _BySlices(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, lengths: list[int], trained: bool
    ) -> Tensor:
        kept = [document for document, length in enumerate(lengths) if length]
        values = hidden.new_zeros(len(kept), weight.shape[0])
        active: _Active | None = _no_entries(hidden)
        if kept:
            active = _largest(hidden, PackedTokens([lengths[i] for i in kept]), weight, bias, values, trained)
        if len(kept) < len(lengths):  # documents without tokens
            places = torch.tensor(kept, dtype=torch.long, device=hidden.device)
            values = hidden.new_zeros(len(lengths), weight.shape[0]).index_copy_(0, places, values)
            if active is not None:
                active = active._replace(documents=places[active.documents])
        ctx.bias_dtype = None if bias is None else bias.dtype
        if trained and active is not None:
            ctx.save_for_backward(hidden, weight, *active)
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, documents, entries, winners = ctx.saved_tensors
        exact = torch.promote_types(hidden.dtype, torch.float32)  # sums of half precision are kept in float32
        scale = grad[documents, entries].to(exact)
        of_hidden = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_hidden = _sum_rows(winners, entries, scale, weight.to(exact), len(hidden)).to(hidden.dtype)
        if ctx.needs_input_grad[1]:
            of_weight = _sum_rows(entries, winners, scale, hidden.to(exact), len(weight)).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            of_bias = scale.new_zeros(len(weight)).index_add_(0, entries, scale).to(ctx.bias_dtype)
        return of_hidden, of_weight, of_bias, None, None


def _sum_rows(target: Tensor, source: Tensor, scale: Tensor, rows: Tensor, size: int) -> Tensor:
    """Add ``scale[k] * rows[source[k]]`` to row ``target[k]`` of ``size`` rows of zeros, for all k."""
    places = torch.stack([target, source])
    matrix = torch.sparse_coo_tensor(places, scale, (size, len(rows)), check_invariants=False)
    return rows.new_zeros(size, rows.shape[1]).addmm_(matrix, rows)


def _largest(
    hidden: Tensor, segments: PackedTokens, weight: Tensor, bias: Tensor | None, values: Tensor, trained: bool
) -> _Active | None:
    """Write the floored largest logits to ``values``; the active entries and their winners if ``trained``."""
    screened = _few_candidates(hidden, segments, weight, bias)
    if screened:
        screening.upper_bounds(hidden, segments, weight, bias, out=values)
    else:
        for entries in segments.vocabulary_slices(len(weight)):
            for group in segments.groups:
                group.largest(hidden[group.tokens] @ weight[entries].T, values[group.documents, entries])
        if bias is not None:
            values += bias
    if screened or trained:
        return _exact(hidden, segments, weight, bias, values, screened=screened)
    values.relu_()
    return None


def _few_candidates(hidden: Tensor, segments: PackedTokens, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether screening would pay, judged by a part of the documents and of the vocabulary."""
    if (
        hidden.dtype is not torch.float32
        or hidden.device.type != "cpu"
        or len(hidden) < _SCREENED_TOKENS
        or weight.numel() < _SCREENED_WEIGHTS
        or not screening.available()
    ):
        return False
    first = segments.groups[0]
    some = weight[::_SAMPLE]
    bounds = screening.upper_bounds(
        hidden[first.tokens],
        PackedTokens(first.lengths),
        some,
        None if bias is None else bias[::_SAMPLE],
        out=hidden.new_empty(len(first.lengths), len(some)),
    )
    # To fetch an entry's weights costs as much as to multiply them with two dozen tokens.
    length = len(hidden) / len(segments.lengths)
    return _possible(bounds).float().mean().item() * (length + 24) < length / 2


def _possible(values: Tensor) -> Tensor:
    """Entries that are above zero or not a number."""
    return (values <= 0).logical_not_()


def _exact(
    hidden: Tensor,
    segments: PackedTokens,
    weight: Tensor,
    bias: Tensor | None,
    values: Tensor,
    *,
    screened: bool,
) -> _Active:
    """Find the winners of possible entries and, where ``values`` holds bounds, put values in their place."""
    exact = torch.promote_types(hidden.dtype, torch.float32)
    found = [_no_entries(hidden)]
    for document, tokens in segments:
        states, row = hidden[tokens], values[document]
        possible = _possible(row).nonzero().squeeze(1)
        # The first of equal tokens wins: the one with the largest place when counted from the end.
        places = torch.arange(len(states), 0, -1, dtype=exact, device=hidden.device)
        for entries in possible.split(max(64, _EXACT_ELEMENTS // len(states))):
            logits = (weight.index_select(0, entries) @ states.T).to(exact)
            largest = logits.amax(1)
            if screened:
                row[entries] = largest if bias is None else largest + bias[entries]
            won = logits.eq_(largest.unsqueeze(1)).mul_(places).amax(1).long()
            winners = (len(states) - won).clamp_(max=len(states) - 1).add_(tokens.start)
            found.append(_Active(torch.full_like(entries, document), entries, winners))
        row.relu_()
    active = _Active(*map(torch.cat, zip(*found, strict=True)))
    if screened:
        certain = _possible(values[active.documents, active.entries])
        active = _Active(*(one[certain] for one in active))
    return active
