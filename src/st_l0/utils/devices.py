"""What not every device can do."""

from __future__ import annotations

import torch
from torch import Tensor


def as_double(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the CPU where its device, Apple's GPU, has none."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()


def emulates_bfloat16() -> bool:
    """Whether this CPU is known to have no products in bfloat16: they take longer than in float32."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask is not None else {}
    known = found.get("architecture") == "x86_64"
    return known and not any(found.get(name) for name in ("amx_bf16", "avx512_bf16"))
