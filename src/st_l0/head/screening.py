"""Which vocabulary entries may be active: an upper bound of each largest logit, from 8-bit integers.

A sparse document has a few hundred active entries among tens of thousands, and for almost all others a coarse
product proves that they are not: hidden states and decoder are rounded to 8-bit integers, whose products are
several times faster than those of float32 and exact, and what the rounding can have hidden is added by the
inequality of Cauchy and Schwarz. With ``h'`` and ``w'`` for the rounded vectors::

    |h.w - h'.w'| = |(h - h').w + h'.(w - w')| <= |h - h'| |w| + |h'| |w - w'|

An entry whose bound is not above 0 is inactive for sure; the others have to be computed.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from st_l0.head.packing import PackedTokens
from st_l0.utils.devices import cpu_capabilities

_LARGEST = 127
# Norms below it may be off, because squares of small numbers vanish in float32.
_TINY = 2.0**-50


class _Rounded(NamedTuple):
    """Vectors as multiples of a scale, with the norms of the bound; a row may share its scale with others."""

    multiples: Tensor
    """``(rows, hidden)``, int8."""
    norm: Tensor
    """Length of each vector, ``(rows,)``, and not less."""
    lost: Tensor
    """Length of the difference to the rounded vector, ``(rows,)``, and not less."""


@cache
def available() -> bool:
    """Whether this CPU multiplies 8-bit integers fast, and torch says so and does it without overflow."""
    if not hasattr(torch, "_int_mm") or not torch.backends.mkldnn.is_available():
        return False
    found = cpu_capabilities()
    if not any(found.get(name) for name in ("avx512_vnni", "avx_vnni", "amx_int8")):
        return False
    # Some instructions stop at 16 bits on the way.
    full = torch.full((32, 256), _LARGEST, dtype=torch.int8)
    sign = torch.tensor([1, -1], dtype=torch.int8).repeat(16).unsqueeze(1)
    expected = (_LARGEST**2 * 256 * sign.int()).expand(32, 32)
    return torch.equal(torch._int_mm(full * sign, full.T), expected)


def upper_bounds(
    hidden: Tensor, segments: PackedTokens, weight: Tensor, bias: Tensor | None, out: Tensor
) -> Tensor:
    """Bound the largest logit of each vocabulary entry over the tokens of a document from above.

    The bound holds for the logit as float32 computes it too. What is not finite gets a bound that is not
    finite.

    Args:
        hidden: Tokens of all documents, one after the other, ``(tokens, hidden)``, float32.
        segments: Which of them belong to a document; none is empty.
        weight: Of the decoder, ``(vocabulary, hidden)``, float32.
        bias: Of the decoder, ``(vocabulary,)``, or ``None``.
        out: Takes the bounds, ``(documents, vocabulary)``, float32.

    Returns:
        ``out``.
    """
    scale = segments.largest(_absolute_largest(hidden)).div_(_LARGEST).clamp_(min=_TINY)
    tokens = _rounded(hidden, segments.repeat(scale))
    norm, lost = segments.largest(tokens.norm).unsqueeze(1), segments.largest(tokens.lost).unsqueeze(1)
    scale = scale.unsqueeze(1)
    rounded_norm = norm + lost  # of h', which may be longer than h
    lost = lost + norm * ((hidden.shape[1] + 64) * 2.0**-23)  # twice what a sum in float32 can be off
    for entries in segments.vocabulary_slices(weight.shape[0]):
        rows = weight[entries]
        entry_scale = _absolute_largest(rows).div_(_LARGEST).clamp_(min=_TINY)
        entry = _rounded(rows, entry_scale)
        largest = torch.empty(len(scale), len(rows), dtype=torch.int32)
        for group in segments.groups:
            group.largest(
                torch._int_mm(tokens.multiples[group.tokens], entry.multiples.T), largest[group.documents]
            )
        bounds = largest.float().mul_(scale).mul_(entry_scale)
        bounds.addcmul_(lost, entry.norm).addcmul_(rounded_norm, entry.lost)
        if bias is not None:
            bounds.add_(bias[entries] + bias[entries].abs() * 2.0**-20)
        out[:, entries] = bounds
    return out


def _absolute_largest(rows: Tensor) -> Tensor:
    return torch.maximum(rows.amax(1), -rows.amin(1))


def _rounded(rows: Tensor, scale: Tensor) -> _Rounded:
    multiples = (rows * scale.reciprocal().unsqueeze(1)).round_()
    lost = torch.linalg.vector_norm(torch.addcmul(rows, multiples, scale.unsqueeze(1), value=-1), dim=1)
    norm = torch.linalg.vector_norm(rows, dim=1)
    return _Rounded(multiples.to(torch.int8), norm * (1 + 2.0**-10) + _TINY, lost * (1 + 2.0**-10) + _TINY)
