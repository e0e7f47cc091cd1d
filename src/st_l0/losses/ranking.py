"""Losses that teach which document belongs to which query."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from st_l0.errors import InputError
from st_l0.losses.distributed import all_gather, rank, world_size


class InfoNCELoss(nn.Module):
    """Cross-entropy of the own positive among all documents of the batch, on all devices.

    For query ``i`` with positive ``p_i``::

        loss = mean_i -log( exp(s(i, p_i) / T) / sum_{d in candidates(i)} exp(s(i, d) / T) )

    The candidates are the documents of all queries, but never one that is known to be right: a document
    equal to the query's own positive (many queries share a passage) or to the positive of a query with the
    same text.

    Args:
        temperature: T > 0.

    Raises:
        InputError: ``temperature`` is not positive.

    Source: van den Oord et al., 2018, https://arxiv.org/abs/1807.03748
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature must be positive, not {temperature}")
        self.temperature = temperature

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
            labels: not used (the face that stock losses have).
            keys: identity of each text, int64 ``(queries,)`` per column in the order of ``embeddings``; equal
                keys mean equal texts. Without them, as under stock `SpladeLoss`, no two texts count as equal.

        Returns:
            The mean over this device's queries, a scalar.
        """
        queries, columns = embeddings[0], embeddings[1:]
        if not columns:
            raise InputError("InfoNCE needs queries and documents, but the batch has one column only")
        documents = [all_gather(column) for column in columns]
        scores = torch.cat([queries @ column.T for column in documents], dim=1) / self.temperature
        own = torch.arange(len(queries), device=scores.device) + self._offset(queries)
        if keys is not None:
            scores = scores.masked_fill(self._known_right(keys, own), float("-inf"))
        return functional.cross_entropy(scores, own)

    @staticmethod
    def _offset(queries: Tensor) -> int:
        """Index of this rank's first query among those of all ranks."""
        if world_size() == 1:
            return 0
        owners = all_gather(torch.full((len(queries),), rank(), device=queries.device))
        return int((owners < rank()).sum())

    @staticmethod
    def _known_right(keys: Sequence[Tensor], own: Tensor) -> Tensor:
        """Candidates that must not count as negatives, ``(queries, documents of all columns)``."""
        all_queries = all_gather(keys[0])
        candidates = torch.cat([all_gather(column) for column in keys[1:]])
        _, texts = torch.unique(candidates, return_inverse=True)
        query, twin = (keys[0][:, None] == all_queries[None]).nonzero(as_tuple=True)
        right = torch.zeros(len(own), len(candidates), dtype=torch.bool, device=own.device)
        right[query, texts[twin]] = True  # by text first: the positives come first among the candidates
        right = right[:, texts]
        right[torch.arange(len(own), device=own.device), own] = False
        return right

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"temperature": self.temperature}

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
