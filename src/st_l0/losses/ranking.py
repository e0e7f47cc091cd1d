"""Losses that teach which document belongs to which query, from labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.losses.scores import BatchScores, global_mean


class RankingLoss(Protocol):
    """The face of a ranking loss; stock `SpladeLoss` takes one as ``loss``."""

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Loss of this batch; see `InfoNCELoss`."""

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""

    @property
    def citation(self) -> str:
        """BibTeX of the source."""


class InfoNCELoss(nn.Module):
    """Cross-entropy of the own positive among all documents of the batch, on all devices.

    For query ``i`` with positive ``p_i``::

        loss = mean_i -log( exp(s(i, p_i) / T) / sum_{d in candidates(i)} exp(s(i, d) / T) )

    The candidates are the documents of all queries, but never one that is known to be right: a document
    equal to the query's own positive (many queries share a passage) or to the positive of a query with the
    same text.

    Args:
        temperature: T > 0.
        in_batch_negatives: without them a query's candidates are its own documents only.

    Raises:
        InputError: ``temperature`` is not positive.

    Source: van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """

    def __init__(self, temperature: float = 1.0, *, in_batch_negatives: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature
        self.in_batch_negatives = in_batch_negatives

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
    ) -> Tensor:
        """Loss of this batch.

        Args:
            embeddings: queries, positives, then any number of hard negatives, each ``(queries, vocabulary)``.
                Further queries, which have no positive, are left out.
            labels: not used, but for their number of rows (see `BatchScores`).
            keys: identity of each text, int64 ``(queries,)`` per column in the order of ``embeddings``; equal
                keys mean equal texts. Without them, as under stock `SpladeLoss`, no two texts count as equal.

        Returns:
            A scalar: on one device the mean over the queries; on several their average is the mean over all.
        """
        batch = BatchScores(embeddings, keys, labels)
        if not self.in_batch_negatives:
            scores = batch.own()
            target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
        else:
            scores, target = batch.all(), batch.own_positions()[:, 0]
            right = batch.false_negative_mask(own=1)
            if right is not None:
                scores = scores.masked_fill(right, float("-inf"))
        return global_mean(functional.cross_entropy(scores / self.temperature, target, reduction="none"))

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"temperature": self.temperature, "in_batch_negatives": self.in_batch_negatives}

    @property
    def citation(self) -> str:
        """BibTeX of the source."""
        return """
@misc{oord2018representation,
    title={Representation Learning with Contrastive Predictive Coding},
    author={Aaron van den Oord and Yazhe Li and Oriol Vinyals},
    year={2018},
    url={https://arxiv.org/abs/1807.03748},
}
"""


class WeightedRankingLoss(nn.Module):
    """A weighted sum of ranking losses, each a part of the log.

    Args:
        parts: name of each part, such as ``"kl"``, to the loss and its weight.

    Raises:
        InputError: there is no part, or a weight is not positive.
    """

    def __init__(self, parts: Mapping[str, tuple[RankingLoss, float]]) -> None:
        super().__init__()
        if not parts:
            raise InputError("give at least one ranking loss")
        for name, (_, weight) in parts.items():
            if not weight > 0:
                raise InputError(f"the weight of ranking loss {name} must be positive, not {weight}")
        self.parts = dict(parts)

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """The weighted parts, ``"<name>_loss"`` to a scalar; arguments as in `InfoNCELoss`."""
        found = {}
        for name, (loss, weight) in self.parts.items():
            part = loss.compute_loss_from_embeddings(embeddings, labels, keys=keys)
            total = torch.stack(list(part.values())).sum() if isinstance(part, dict) else part
            found[f"{name}_loss"] = weight * total
        return found

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {
            name: {"weight": weight, **loss.get_config_dict()} for name, (loss, weight) in self.parts.items()
        }

    @property
    def citation(self) -> str:
        """BibTeX of the parts."""
        return "".join(loss.citation for loss, _ in self.parts.values())
