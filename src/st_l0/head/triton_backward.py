"""The backward pass of the MLM head and masked max on a GPU: three Triton kernels.

The few active entries of each document are listed first. For ``hidden``, a program takes a block of rows,
picks those of the list that one of them won, and multiplies their gradients with their rows of ``weight``, on
the tensor cores. For ``weight``, a program takes one entry, and sums over the documents where it is active.

Nothing is sorted, nobody waits for the number of active entries, gradients are written once, in their dtype,
and there are no atomics: the same input gives the same bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

# Entries of a segment, which one program lists (a place in a document times as many stays below 2**31); rows
# and entries of a tile of ``hidden``; documents of one of ``weight``; columns of both.
_SEGMENT, _BLOCK_T, _BLOCK_E, _BLOCK_D, _BLOCK_H = (
    (32, 16, 16, 2, 16) if triton.knobs.runtime.interpret else (4096, 16, 32, 16, 128)
)


def backward(
    grad: Tensor,
    values: Tensor,
    winners: Tensor,
    hidden: Tensor,
    weight: Tensor,
    offsets: Tensor,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Gradients of `st_l0.head.triton_kernels.forward` through its active entries, summed in float32.

    Args:
        grad: Of the values, ``(documents, vocabulary)``, in the dtype of ``hidden``.
        values: What `forward` gave. Active is what is not 0: NaN counts, so that it shows in the gradients.
        winners: What `forward` gave.
        hidden: What `forward` took, ``(tokens, hidden)``.
        weight: What `forward` took, ``(vocabulary, hidden)``.
        offsets: What `forward` took.
        needs_bias: Whether to give the gradient of the bias as well.

    Returns:
        Gradients of ``hidden`` and of ``weight``, in their dtype, and, if asked for, of the bias, float32.
    """
    documents, vocabulary = values.shape
    of_hidden, of_weight = torch.empty_like(hidden), torch.empty_like(weight)
    of_bias = torch.empty(vocabulary, dtype=torch.float32, device=weight.device) if needs_bias else None
    if len(hidden) == 0 or vocabulary == 0:
        return of_hidden.zero_(), of_weight.zero_(), None if of_bias is None else of_bias.zero_()
    grad, segments = grad.contiguous(), triton.cdiv(vocabulary, _SEGMENT)
    parts = triton.cdiv(hidden.shape[1], _BLOCK_H)
    shape: dict[str, Any] = {"HIDDEN": hidden.shape[1], "BLOCK_H": _BLOCK_H}
    listed = torch.empty_like(winners)
    counts = torch.empty(documents * segments, dtype=torch.int32, device=values.device)
    firsts = torch.arange(0, len(hidden), _BLOCK_T, dtype=torch.int32, device=offsets.device)
    owners = torch.bucketize(firsts, offsets[1:], right=True, out_int32=True)
    with torch.cuda.device_of(hidden):
        _list_active[(documents * segments,)](
            values, winners, offsets, listed, counts, vocabulary, SEGMENT=_SEGMENT, num_warps=8
        )
        _sum_over_entries[(len(owners) * parts,)](
            grad,
            listed,
            counts,
            offsets,
            owners,
            weight,
            of_hidden,
            len(hidden),
            vocabulary,
            SEGMENT=_SEGMENT,
            BLOCK_T=_BLOCK_T,
            BLOCK_E=_BLOCK_E,
            **shape,
        )
        _sum_over_documents[(vocabulary * parts,)](
            grad,
            values,
            winners,
            hidden,
            of_weight,
            of_bias,
            documents,
            vocabulary,
            HAS_BIAS=needs_bias,
            BLOCK_D=_BLOCK_D,
            num_warps=2,
            **shape,
        )
    return of_hidden, of_weight, of_bias


@triton.jit  # type: ignore[untyped-decorator]
def _list_active(
    values: tl.tensor,
    winners: tl.tensor,
    offsets: tl.tensor,
    listed: tl.tensor,
    counts: tl.tensor,
    vocabulary: tl.tensor,
    SEGMENT: tl.constexpr,
) -> None:
    """List the active entries of one segment of the vocabulary of one document, in order.

    An item is the winner's place in the document times SEGMENT, plus the entry's place in the segment.
    """
    program = tl.program_id(0)
    segments = tl.cdiv(vocabulary, SEGMENT)
    document = program // segments
    begin = program % segments * SEGMENT
    places = tl.arange(0, SEGMENT)
    row = document.to(tl.int64) * vocabulary + begin
    value = tl.load(values + row + places, mask=begin + places < vocabulary, other=0.0)
    active = value != 0
    winner = tl.load(winners + row + places, mask=active, other=0) - tl.load(offsets + document)
    order = tl.cumsum(active.to(tl.int32), 0)
    tl.store(listed + row + order - 1, winner * SEGMENT + places, mask=active)
    tl.store(counts + program, tl.max(order, 0))


@triton.jit  # type: ignore[untyped-decorator]
def _sum_over_entries(
    grad: tl.tensor,
    listed: tl.tensor,
    counts: tl.tensor,
    offsets: tl.tensor,
    owners: tl.tensor,
    weight: tl.tensor,
    out: tl.tensor,
    tokens: tl.tensor,
    vocabulary: tl.tensor,
    HIDDEN: tl.constexpr,
    SEGMENT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
) -> None:
    """Gradient of a block of rows of ``hidden``, which may be those of several documents."""
    parts: tl.constexpr = (HIDDEN + BLOCK_H - 1) // BLOCK_H
    program = tl.program_id(0)
    block = program // parts
    columns = program % parts * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = columns < HIDDEN
    first = block * BLOCK_T
    end = tl.minimum(first + BLOCK_T, tokens)
    rows = first + tl.arange(0, BLOCK_T)
    total = tl.zeros((BLOCK_T, BLOCK_H), tl.float32)
    segments = tl.cdiv(vocabulary, SEGMENT)
    document = tl.load(owners + block)
    start = tl.load(offsets + document)
    while start < end:
        for segment in range(segments):
            count = tl.load(counts + document * segments + segment)
            begin = document.to(tl.int64) * vocabulary + segment * SEGMENT
            for place in range(0, count, BLOCK_E):
                places = place + tl.arange(0, BLOCK_E)
                item = tl.load(listed + begin + places, mask=places < count, other=0)
                winner = start + item // SEGMENT
                won = (places < count) & (winner >= first) & (winner < end)
                if tl.max(won.to(tl.int32), 0) > 0:
                    entry = item % SEGMENT
                    scale = tl.load(grad + begin + entry, mask=won, other=0.0)
                    scales = tl.where(won[None, :] & (winner[None, :] == rows[:, None]), scale[None, :], 0.0)
                    weight_rows = weight + (segment * SEGMENT + entry).to(tl.int64)[:, None] * HIDDEN
                    w = tl.load(
                        weight_rows + columns[None, :], mask=won[:, None] & inside[None, :], other=0.0
                    )
                    total = tl.dot(scales.to(w.dtype), w, total, input_precision="ieee")
        document += 1
        start = tl.load(offsets + document)
    pointers = out + rows.to(tl.int64)[:, None] * HIDDEN + columns[None, :]
    tl.store(pointers, total.to(out.dtype.element_ty), mask=(rows < tokens)[:, None] & inside[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _sum_over_documents(
    grad: tl.tensor,
    values: tl.tensor,
    winners: tl.tensor,
    hidden: tl.tensor,
    out: tl.tensor,
    of_bias: tl.tensor,
    documents: tl.tensor,
    vocabulary: tl.tensor,
    HIDDEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_H: tl.constexpr,
) -> None:
    """Gradient of a row of ``weight``, and of its bias."""
    parts: tl.constexpr = (HIDDEN + BLOCK_H - 1) // BLOCK_H
    program = tl.program_id(0)
    entry = program // parts
    columns = program % parts * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = columns < HIDDEN
    total = tl.zeros((BLOCK_H,), tl.float32)
    bias = tl.zeros((BLOCK_D,), tl.float32)
    for first in range(0, documents, BLOCK_D):
        document = first + tl.arange(0, BLOCK_D)
        place = document.to(tl.int64) * vocabulary + entry
        active = tl.load(values + place, mask=document < documents, other=0.0) != 0
        if tl.max(active.to(tl.int32), 0) > 0:
            scale = tl.load(grad + place, mask=active, other=0.0).to(tl.float32)
            row = tl.load(winners + place, mask=active, other=0).to(tl.int64)
            pointers = hidden + row[:, None] * HIDDEN + columns[None, :]
            h = tl.load(pointers, mask=active[:, None] & inside[None, :], other=0.0).to(tl.float32)
            total += tl.sum(scale[:, None] * h, 0)
            bias += scale
    tl.store(out + entry.to(tl.int64) * HIDDEN + columns, total.to(out.dtype.element_ty), mask=inside)
    if HAS_BIAS and program % parts == 0:
        tl.store(of_bias + entry, tl.sum(bias, 0))
