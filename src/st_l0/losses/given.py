"""What the losses are called with: dense tensors in rows, or one line that says what is not."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from st_l0.errors import InputError


def as_rows(vectors: Any, name: str) -> Tensor:
    """A dense tensor ``(rows, columns)``; a sparse one, as `encode` gives them, is made dense.

    Args:
        vectors: The tensor.
        name: What it is called in complaints.

    Raises:
        InputError: It is no tensor, or has another number of dimensions.
    """
    if not isinstance(vectors, Tensor):
        raise InputError(
            f"{name}: a {type(vectors).__name__} is no tensor; give one of shape (rows, columns)"
        )
    if vectors.dim() != 2:
        raise InputError(f"{name}: the shape is {tuple(vectors.shape)}; give a tensor (rows, columns)")
    return vectors if vectors.layout is torch.strided else vectors.to_dense()


def as_token_weights(given: Any, name: str) -> Tensor:
    """A weight for each token, ``(vocabulary,)``, of a floating type.

    Args:
        given: A tensor, an array or a list.
        name: What it is called in complaints.

    Raises:
        InputError: It is none of these, or a weight is negative or not finite; the message names its token.
    """
    try:
        weights = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"{name}: give a tensor with a weight for each token, no {type(given).__name__}"
        ) from None
    weights = weights if weights.is_floating_point() else weights.float()
    if weights.dim() != 1:
        raise InputError(f"{name}: the shape is {tuple(weights.shape)}; give one weight for each token")
    bad = (~(weights.isfinite() & (weights >= 0))).nonzero()
    if len(bad):
        token = int(bad[0])
        raise InputError(
            f"{name} must be finite and 0 or more, but that of token {token} is {weights[token]}"
        )
    return weights
