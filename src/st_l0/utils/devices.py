"""What not every device can do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def as_double(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the CPU where its device, Apple's GPU, has none."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def cpu_capabilities() -> dict[str, Any]:
    """What torch knows of this CPU: ``architecture``, and whether it has ``amx_int8`` and the like.

    Nothing where torch is too old to say.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)
    return {} if ask is None else dict(ask())


def emulates_bfloat16() -> bool:
    """Whether this CPU is known to have no products in bfloat16: they take longer than in float32."""
    found = cpu_capabilities()
    known = found.get("architecture") == "x86_64"
    return known and not any(found.get(name) for name in ("amx_bf16", "avx512_bf16"))
