"""Losses that make document vectors sparse. They share one face: ``compute_loss_from_embeddings``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.losses.distributed import all_reduce_sum


class L0MaskFlopsLoss(nn.Module):
    """FLOPS over the documents that have more than ``threshold`` active dims.

    For activations ``w`` of shape ``(documents, vocabulary)``, over the documents of **all** devices::

        loss = sum_j (mean_i mask_i * |w_ij|) ** 2,    mask_i = active_dims_i > threshold

    The mean counts masked documents too, so the penalty fades as documents become sparse. The value and its
    gradient do not depend on the number of devices that share a batch (stock `FlopsLoss` computes a penalty
    for each device's part, which is larger the smaller the part).

    Use it as ``document_regularizer`` of stock `SpladeLoss` or of `SparseRetrievalLoss`.

    Args:
        threshold: active dims that a document keeps for free; ``None`` penalises all (plain FLOPS).
        positions: number of documents a query has. With 1 all documents are pooled into one mean, as in
            stock. With n the batch is cut into n equal parts (all positives, all first negatives …), each
            has its own penalty, and they are summed: the reference implementation's form, for published
            weights. At equal activations the sum of n parts is n times the pooled value, so a weight for the
            per-position form is n times too small for the pooled one.

    Raises:
        InputError: ``threshold`` is negative or ``positions`` is not positive.

    Source: FLOPS: Paria et al., 2020, https://arxiv.org/abs/2004.05665. Mask: Shen et al., 2025,
    https://arxiv.org/abs/2504.14839.
    """

    def __init__(self, threshold: int | None = None, *, positions: int = 1) -> None:
        super().__init__()
        if threshold is not None and threshold < 0:
            raise InputError(f"threshold must be 0 or more active dims, not {threshold}")
        if positions < 1:
            raise InputError(f"positions must be 1 or more, not {positions}")
        self.threshold = threshold
        self.positions = positions

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Penalty of this batch.

        Args:
            embeddings: document vectors of this device, ``(documents, vocabulary)``; with ``positions`` n all
                documents of the first position come first.

        Returns:
            The penalty, a scalar.

        Raises:
            InputError: the number of documents is not a multiple of ``positions``.
        """
        if len(embeddings) % self.positions:
            raise InputError(
                f"{len(embeddings)} documents cannot be cut into {self.positions} equal positions"
            )
        # Half precision overflows in the square and loses small means in the sum.
        weights = embeddings.abs() if embeddings.dtype == torch.float64 else embeddings.float().abs()
        if self.threshold is not None:
            mask = (weights > 0).sum(1, keepdim=True) > self.threshold
            weights = weights * mask
        parts = weights.view(self.positions, -1, weights.shape[1])
        count = all_reduce_sum(
            torch.tensor(float(parts.shape[1]), dtype=weights.dtype, device=weights.device)
        )
        means = all_reduce_sum(parts.sum(1)) / count
        return means.square().sum()

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"threshold": self.threshold, "positions": self.positions}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return """
@inproceedings{shen2025exploring,
    title={Exploring $\\ell_0$ Sparsification for Inference-free Sparse Retrievers},
    author={Shen, Xinjie and Geng, Zhichao and Yang, Yang},
    booktitle={Proceedings of SIGIR},
    year={2025},
    url={https://arxiv.org/abs/2504.14839},
}
"""
