"""Losses that teach which document belongs to which query, from labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.losses.extra_queries import ExtraQueries
from st_l0.losses.scores import BatchScores, global_mean


class RankingLoss(Protocol):
    """The face of a ranking loss; stock `SpladeLoss` takes one as ``loss``."""

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
        extra_queries: ExtraQueries | None = None,
    ) -> Tensor | dict[str, Tensor]:
        """Loss of this batch; see `InfoNCELoss`. ``extra_queries`` is given only where there are some."""

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
        in_batch_negatives: Without them a query's candidates are its own documents only.

    Raises:
        InputError: ``temperature`` is not positive.

    Example:
        >>> import torch
        >>> queries = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> positives = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
        >>> InfoNCELoss().compute_loss_from_embeddings([queries, positives])
        tensor(0.2201)

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
        extra_queries: ExtraQueries | None = None,
    ) -> Tensor:
        """Loss of this batch.

        Args:
            embeddings: Queries, positives, then any number of hard negatives, each ``(queries, vocabulary)``.
            labels: Not used.
            keys: Identity of each text, int64 ``(queries,)`` per column in the order of ``embeddings``; equal
                keys mean equal texts. Without them, as under stock `SpladeLoss`, no two texts count as equal.
            extra_queries: Not used: they have no positive.

        Returns:
            A scalar: on one device the mean over the queries; on several their average is the mean over all.
        """
        batch = BatchScores(embeddings, keys)
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
    """A weighted sum of ranking losses, each a term of its own in the log.

    Args:
        terms: Name of each term, such as ``"kl"``, to the loss and its weight.

    Raises:
        InputError: There is no term, or a weight is not positive.

    Example:
        >>> import torch
        >>> from st_l0.losses import MarginMSELoss
        >>> query, positive, negative = torch.tensor([[[1.0, 0.0]], [[2.0, 0.0]], [[1.0, 0.0]]])
        >>> loss = WeightedRankingLoss({"margin": (MarginMSELoss(), 0.5), "infonce": (InfoNCELoss(), 1.0)})
        >>> loss.compute_loss_from_embeddings([query, positive, negative], torch.tensor([[3.0, 0.0]]))
        {'margin_loss': tensor(2.), 'infonce_loss': tensor(0.3133)}
    """

    def __init__(self, terms: Mapping[str, tuple[RankingLoss, float]]) -> None:
        super().__init__()
        if not terms:
            raise InputError("give at least one ranking loss")
        for name, (_, weight) in terms.items():
            if not weight > 0:
                raise InputError(f"the weight of ranking loss {name} must be positive, not {weight}")
        self.terms = dict(terms)

    def compute_loss_from_embeddings(
        self,
        embeddings: Sequence[Tensor],
        labels: Tensor | None = None,
        *,
        keys: Sequence[Tensor] | None = None,
        extra_queries: ExtraQueries | None = None,
    ) -> dict[str, Tensor]:
        """The weighted terms, ``"<name>_loss"`` to a scalar; arguments as in `InfoNCELoss`."""
        options: dict[str, Any] = {"keys": keys}
        if extra_queries is not None:  # a loss of one's own need not know them
            options["extra_queries"] = extra_queries
        found = {}
        for name, (loss, weight) in self.terms.items():
            term = loss.compute_loss_from_embeddings(embeddings, labels, **options)
            total = torch.stack(list(term.values())).sum() if isinstance(term, dict) else term
            found[f"{name}_loss"] = weight * total
        return found

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {
            name: {"weight": weight, **loss.get_config_dict()} for name, (loss, weight) in self.terms.items()
        }

    @property
    def citation(self) -> str:
        """BibTeX of the terms."""
        return "".join(loss.citation for loss, _ in self.terms.values())
