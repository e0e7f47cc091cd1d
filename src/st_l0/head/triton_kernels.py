"""MLM head and masked max on a GPU: one Triton kernel for the forward pass, three for the backward pass.

A program takes one document and one block of the vocabulary, walks over the document's tokens and keeps the
running max and its row in registers, so logits never reach memory. Its tile is (vocabulary, tokens): the max
then runs inside a thread, not across threads. The backward pass: `st_l0.head.triton_backward`.

Idea: Sparton, https://arxiv.org/abs/2603.25011.
"""

from __future__ import annotations

from typing import Any

import torch
import triton  # type: ignore[import-untyped]
import triton.language as tl  # type: ignore[import-untyped]
from torch import Tensor

from st_l0.head.triton_backward import backward

__all__ = ["backward", "forward", "supports"]

# Vocabulary and tokens of a tile, bytes of one of its rows, warps, stages. They need 144 KiB of shared memory
# at most, those with rows of 64 bytes 48 KiB.
_TILES = (
    (128, 256, 128, 8, 3),
    (128, 128, 128, 8, 3),
    (128, 64, 128, 4, 3),
    (128, 32, 128, 4, 3),
    (128, 128, 64, 8, 3),
    (128, 64, 64, 4, 3),
    (64, 32, 64, 4, 2),
)
_INTERPRETED_TILES = ((16, 16, 32, 1, 1),)  # without a GPU nothing can be timed
# Programs that run at the same time share so many documents and a few blocks of the vocabulary, which the
# cache of the GPU holds.
_GROUP = 32
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def supports(hidden: Tensor) -> bool:
    """Whether the kernels should take these hidden states: float32, float16 or bfloat16 on Ampere or newer.

    They compile for older NVIDIA GPUs too, but Triton does not use the tensor cores there.
    """
    if not hidden.is_cuda or hidden.dtype not in _DTYPES:
        return False
    return torch.version.hip is not None or torch.cuda.get_device_capability(hidden.device) >= (8, 0)


def forward(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, offsets: Tensor, *, needs_winners: bool = True
) -> tuple[Tensor, Tensor | None]:
    """Largest logit of each vocabulary entry over the tokens of a document, floored at zero.

    Products are summed in float32; float32 inputs are multiplied in full precision unless torch allows TF32
    for matrix products (``torch.backends.cuda.matmul.fp32_precision``). The first call for a hidden size, a
    dtype and a range of lengths tries a few tile sizes, which takes seconds.

    Args:
        hidden: Real tokens of all documents one after the other, ``(tokens, hidden)``, contiguous; float32,
            float16 or bfloat16.
        weight: ``(vocabulary, hidden)``, contiguous, in the dtype of ``hidden``.
        bias: ``(vocabulary,)`` or ``None``.
        offsets: ``(documents + 1,)``, int32; document ``d`` has rows ``offsets[d]:offsets[d + 1]`` of
            ``hidden``, none if the two are equal.
        needs_winners: Whether `backward` will follow; without, a fifth of the time is saved.

    Returns:
        Values ``(documents, vocabulary)`` in the dtype of ``hidden``, and winners of the same shape, int32:
        the row of ``hidden`` that holds the max, the first one at a tie; no meaning where the value is 0.
        ``None`` if they are not needed. A document without tokens is all zeros. A NaN among its logits makes
        a value NaN, as in torch.

    Raises:
        TypeError: ``hidden`` has another dtype, or ``weight`` not the same.
    """
    if hidden.dtype not in _DTYPES or weight.dtype != hidden.dtype:
        raise TypeError(f"no kernel for hidden states of {hidden.dtype} with weights of {weight.dtype}")
    documents, vocabulary, tokens = offsets.numel() - 1, weight.shape[0], hidden.shape[0]
    values = hidden.new_zeros(documents, vocabulary)
    winners = torch.zeros_like(values, dtype=torch.int32) if needs_winners else None
    if tokens == 0 or documents == 0:
        return values, winners
    # The accumulated setting of both of torch's interfaces; `allow_tf32` raises where the newer one was used.
    tf32 = hidden.is_cuda and torch.backends.cuda.matmul.fp32_precision == "tf32"
    with torch.cuda.device_of(hidden):  # Triton launches on the current device
        _largest_logits[lambda tile: (documents * triton.cdiv(vocabulary, tile["BLOCK_V"]),)](
            hidden,
            weight,
            bias,
            offsets,
            values,
            winners,
            documents,
            vocabulary,
            min(256, triton.next_power_of_2(triton.cdiv(tokens, documents))),
            HIDDEN=hidden.shape[1],
            HAS_BIAS=bias is not None,
            HAS_WINNERS=needs_winners,
            PRECISION="tf32" if tf32 else "ieee",
            GROUP=_GROUP,
        )
    return values, winners


def _without_spills(configs: list[Any], arguments: dict[str, Any], **rest: Any) -> list[Any]:
    """Tiles for these arguments: without tensor cores, long rows do not fit the registers."""
    hidden = arguments["hidden"]
    full = hidden.dtype == torch.float32 and rest["PRECISION"] == "ieee"
    if full or not supports(hidden):
        return [config for config in configs if config.kwargs["K_BYTES"] <= 64]
    return configs


@triton.jit  # type: ignore[untyped-decorator]
def _larger(a: tl.tensor, b: tl.tensor) -> tl.tensor:
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.autotune(  # type: ignore[untyped-decorator]
    configs=[
        triton.Config({"BLOCK_V": v, "BLOCK_T": t, "K_BYTES": k}, num_warps=warps, num_stages=stages)
        for v, t, k, warps, stages in (_INTERPRETED_TILES if triton.knobs.runtime.interpret else _TILES)
    ],
    key=["typical_length", "HIDDEN", "HAS_WINNERS", "PRECISION"],
    prune_configs_by={"early_config_prune": _without_spills},
    cache_results=True,
)
@triton.jit(do_not_specialize=["typical_length"])  # type: ignore[untyped-decorator]
def _largest_logits(
    hidden: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    offsets: tl.tensor,
    values: tl.tensor,
    winners: tl.tensor,
    documents: tl.tensor,
    vocabulary: tl.tensor,
    typical_length: tl.tensor,
    HIDDEN: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_WINNERS: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_T: tl.constexpr,
    K_BYTES: tl.constexpr,
) -> None:
    BLOCK_K: tl.constexpr = K_BYTES * 8 // hidden.dtype.element_ty.primitive_bitwidth
    # Programs go over the documents of a group first, then over the vocabulary, then to the next group.
    program = tl.program_id(0)
    blocks = tl.cdiv(vocabulary, BLOCK_V)
    group = program // (GROUP * blocks) * GROUP
    inside = program % (GROUP * blocks)
    members = tl.minimum(documents - group, GROUP)
    document = group + inside % members
    entries = inside // members * BLOCK_V + tl.arange(0, BLOCK_V)
    exists = entries < vocabulary
    start = tl.load(offsets + document)
    end = tl.load(offsets + document + 1)
    places = tl.arange(0, BLOCK_T)
    columns = tl.arange(0, BLOCK_K)
    # Past the end, of the vocabulary and of the document, the last row is repeated: loads need no mask for
    # that, a repeated row changes no max, and the first of equals wins.
    weight_rows = weight + tl.minimum(entries, vocabulary - 1).to(tl.int64)[:, None] * HIDDEN
    largest = tl.full((BLOCK_V,), float("-inf"), tl.float32)
    winner = tl.zeros((BLOCK_V,), tl.int32)
    for first in range(start, end, BLOCK_T):
        rows = tl.minimum(first + places, end - 1)
        hidden_rows = hidden + rows.to(tl.int64)[None, :] * HIDDEN
        logits = tl.zeros((BLOCK_V, BLOCK_T), tl.float32)
        for k in range(0, HIDDEN, BLOCK_K):
            column = k + columns
            if HIDDEN % BLOCK_K == 0:
                w = tl.load(weight_rows + column[None, :])
                h = tl.load(hidden_rows + column[:, None])
            else:
                w = tl.load(weight_rows + column[None, :], mask=column[None, :] < HIDDEN, other=0.0)
                h = tl.load(hidden_rows + column[:, None], mask=column[:, None] < HIDDEN, other=0.0)
            logits = tl.dot(w, h, logits, input_precision=PRECISION)
        peak = tl.reduce(logits, 1, _larger)
        if HAS_WINNERS:
            place = tl.min(tl.where(logits < peak[:, None], BLOCK_T, places[None, :]), 1)
            better = (peak > largest) | (peak != peak)  # NaN stays
            winner = tl.where(better, first + place, winner)
            largest = tl.where(better, peak, largest)
        else:
            largest = _larger(largest, peak)
    if HAS_BIAS:
        largest += tl.load(bias + entries, mask=exists, other=0.0).to(tl.float32)
    largest = tl.where(largest <= 0, 0.0, largest)
    out = document.to(tl.int64) * vocabulary + entries
    tl.store(values + out, largest.to(values.dtype.element_ty), mask=exists)
    if HAS_WINNERS:
        tl.store(winners + out, winner, mask=exists)
