"""What not every device can do."""

from __future__ import annotations

from torch import Tensor


def as_double(tensor: Tensor) -> Tensor:
    """The tensor in float64; on the CPU where its device, Apple's GPU, has none."""
    return tensor.cpu().double() if tensor.device.type == "mps" else tensor.double()
