"""Ranking and sparsity in one loss, with what the training log wants to know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.losses.merged_forward import embed_columns
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.losses.distributed import all_reduce_sum

# An odd multiplier of 64 bits: a polynomial hash modulo 2**64, Knuth's MMIX constant.
_HASH = 6364136223846793005


class SparseRetrievalLoss(nn.Module):
    """Ranking loss plus ``document_regularizer_weight`` times a sparsity penalty on the documents.

    Columns are queries, positives, and any number of hard negatives. Equal texts are recognised by their
    token ids, and the ranking loss is told, so that another query's own positive is never a negative.

    Args:
        model: the encoder.
        ranking: such as `InfoNCELoss`.
        document_regularizer: such as `L0MaskFlopsLoss`.
        document_regularizer_weight: lambda_d at its peak.
        ramp_steps: optimizer steps over which the weight grows as ``((step + 1) / ramp_steps) ** 2``; 0
            starts at the peak. The trainer's callback calls `set_step`.

    Raises:
        InputError: a negative weight or ramp.
    """

    def __init__(
        self,
        model: nn.Module,
        ranking: Any,
        document_regularizer: Any,
        document_regularizer_weight: float,
        *,
        ramp_steps: int = 0,
    ) -> None:
        super().__init__()
        if not document_regularizer_weight >= 0:
            raise InputError(
                f"document_regularizer_weight must be 0 or more, not {document_regularizer_weight}"
            )
        if ramp_steps < 0:
            raise InputError(f"ramp_steps must be 0 or more, not {ramp_steps}")
        self.model = model
        self.ranking = ranking
        self.document_regularizer = document_regularizer
        self.peak_weight = document_regularizer_weight
        self.ramp_steps = ramp_steps
        self.document_regularizer_weight = document_regularizer_weight
        self._statistics: dict[str, Tensor] = {}
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Set the weight for the optimizer step ``step``, counted from 0."""
        share = 1.0 if self.ramp_steps == 0 else min(1.0, (step + 1) / self.ramp_steps)
        self.document_regularizer_weight = self.peak_weight * share**2

    def forward(
        self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Loss parts of one batch; the trainer sums and logs them."""
        features = list(sentence_features)
        keys = [text_keys(column["input_ids"], column["attention_mask"]) for column in features]
        embeddings = embed_columns(self.model, features)
        documents = torch.cat(embeddings[1:])
        penalty = self.document_regularizer.compute_loss_from_embeddings(documents)
        self._count(embeddings[0], documents)
        return {
            "ranking_loss": self.ranking.compute_loss_from_embeddings(embeddings, labels, keys=keys),
            "document_regularizer_loss": penalty * self.document_regularizer_weight,
        }

    @torch.no_grad()
    def _count(self, queries: Tensor, documents: Tensor) -> None:
        query_active, document_active = queries != 0, documents != 0
        batch = {
            "query_active_dims": query_active.sum(1).float().mean(),
            "document_active_dims": document_active.sum(1).float().mean(),
            "flops": (query_active.float().mean(0) * document_active.float().mean(0)).sum(),
            "batches": torch.ones((), device=documents.device),
        }
        for name, value in batch.items():
            self._statistics[name] = self._statistics.get(name, 0.0) + value

    def pop_statistics(self) -> dict[str, float]:
        """Means since the last call, over all devices: active dims, FLOPS, and the present weight."""
        totals = {name: float(all_reduce_sum(value)) for name, value in self._statistics.items()}
        self._statistics = {}
        batches = totals.pop("batches", 0.0)
        if not batches:
            return {}
        means = {name: round(total / batches, 4) for name, total in totals.items()}
        return {**means, "document_regularizer_weight": self.document_regularizer_weight}

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {
            "ranking": self.ranking,
            "document_regularizer": self.document_regularizer,
            "document_regularizer_weight": self.peak_weight,
            "ramp_steps": self.ramp_steps,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the parts."""
        return str(self.ranking.citation) + str(self.document_regularizer.citation)


def text_keys(input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """One int64 a text, equal for equal token sequences whatever their padding, ``(texts,)``."""
    mask = attention_mask.bool()
    # Position among the real tokens, so that padding on either side changes nothing.
    position = (mask.long().cumsum(1) - 1).clamp(min=0)
    powers = torch.ones(mask.shape[1] + 1, dtype=torch.int64, device=input_ids.device)
    powers[1:] = _HASH
    powers = powers.cumprod(0)
    return ((input_ids + 1) * powers[position] * mask).sum(1)
