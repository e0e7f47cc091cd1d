"""Ranking and sparsity in one loss, with what the training log wants to know."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.losses.extra_queries import TeacherScores
from st_l0.losses.ranking import RankingLoss
from st_l0.losses.regularizers import Regularizer
from st_l0.losses.statistics import BatchStatistics
from st_l0.utils.stock import embed_columns

# An odd multiplier of 64 bits: a polynomial hash modulo 2**64, Knuth's MMIX constant.
_HASH = 6364136223846793005


class SparseRetrievalLoss(nn.Module):
    """Ranking loss plus weighted sparsity penalties on the documents and, where queries run a model, on them.

    Columns are queries, then the documents of each position (positives, first negatives ...); labels are
    teacher scores, and may bring extra queries (`TeacherScores`), for which neither statistics nor penalties
    are meant. Equal texts are recognised by their token ids, and the ranking loss is told, so that another
    query's own positive is never a negative.

    Args:
        model: The encoder.
        ranking: Such as `InfoNCELoss` or `WeightedRankingLoss`.
        document_regularizer: Such as `FlopsLoss`.
        document_regularizer_weight: λ_d at its peak.
        query_regularizer: The same for the queries; needed where ``query_regularizer_weight`` is not 0.
        query_regularizer_weight: λ_q at its peak.
        ramp_steps: Optimizer steps over which both weights grow as ``((step + 1) / ramp_steps) ** 2``; 0
            starts at the peak. The trainer's callback calls `set_step`.

    Attributes:
        log_statistics: Whether the coming batches are counted for `pop_statistics`; the trainer's callback
            sets it for the steps that are logged, so that the others pay nothing.

    Raises:
        InputError: A negative weight or ramp, or a query weight without a query regularizer.

    Example:
        A toy encoder, whose vectors stand in the features:

        >>> from st_l0.losses import InfoNCELoss, L0MaskFlopsLoss
        >>> class Given(nn.Module):
        ...     def forward(self, features):
        ...         return {"sentence_embedding": features["vectors"]}
        >>> def column(text, vector):
        ...     ids = torch.tensor([[text]])
        ...     return {"input_ids": ids, "attention_mask": ids > 0, "vectors": torch.tensor([vector])}
        >>> batch = [column(1, [1.0, 0.0]), column(2, [3.0, 1.0]), column(3, [1.0, 0.0])]
        >>> SparseRetrievalLoss(Given(), InfoNCELoss(), L0MaskFlopsLoss(1), 0.5)(batch)
        {'ranking_loss': tensor(0.1269), 'document_regularizer_loss': tensor(1.2500)}
    """

    def __init__(
        self,
        model: nn.Module,
        ranking: RankingLoss,
        document_regularizer: Regularizer,
        document_regularizer_weight: float,
        *,
        query_regularizer: Regularizer | None = None,
        query_regularizer_weight: float = 0.0,
        ramp_steps: int = 0,
    ) -> None:
        super().__init__()
        weights = {
            "document_regularizer_weight": document_regularizer_weight,
            "query_regularizer_weight": query_regularizer_weight,
        }
        for name, weight in weights.items():
            if not weight >= 0:
                raise InputError(f"{name} must be 0 or more, not {weight}")
        if query_regularizer is None and query_regularizer_weight:
            raise InputError("query_regularizer_weight needs a query_regularizer")
        if ramp_steps < 0:
            raise InputError(f"ramp_steps must be 0 or more, not {ramp_steps}")
        self.model = model
        self.ranking = ranking
        self.document_regularizer = document_regularizer
        self.query_regularizer = query_regularizer
        self.peak_weights = weights
        self.weights = weights
        self.ramp_steps = ramp_steps
        self._document_weight: float | None = None
        self.log_statistics = True
        self._statistics = BatchStatistics()
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Set the weights for the optimizer step ``step``, counted from 0."""
        share = 1.0 if self.ramp_steps == 0 else min(1.0, (step + 1) / self.ramp_steps)
        self.weights = {name: peak * share**2 for name, peak in self.peak_weights.items()}
        if self._document_weight is not None:
            self.weights["document_regularizer_weight"] = self._document_weight

    def set_document_regularizer_weight(self, weight: float) -> None:
        """Set λ_d itself, from the next `set_step` on: the ramp no longer counts for it."""
        self._document_weight = weight

    def forward(
        self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | TeacherScores | None = None
    ) -> dict[str, Tensor]:
        """Loss terms of one batch; the trainer sums and logs them."""
        options: dict[str, Any] = {}
        if isinstance(labels, TeacherScores):
            labels, options["extra_queries"] = labels
        features = list(sentence_features)
        keys = [text_keys(column["input_ids"], column["attention_mask"]) for column in features]
        embeddings = embed_columns(self.model, features)
        ranking = self.ranking.compute_loss_from_embeddings(embeddings, labels, keys=keys, **options)
        terms = ranking if isinstance(ranking, dict) else {"ranking_loss": ranking}
        ranking_terms = list(terms.values())
        queries, documents = embeddings[0], torch.cat(embeddings[1:])
        penalty = self.document_regularizer.compute_loss_from_embeddings(documents)
        terms["document_regularizer_loss"] = penalty * self.weights["document_regularizer_weight"]
        if self.query_regularizer is not None:
            penalty = self.query_regularizer.compute_loss_from_embeddings(queries)
            terms["query_regularizer_loss"] = penalty * self.weights["query_regularizer_weight"]
        if self.log_statistics:
            self._statistics.observe(queries, documents)
            term = terms["document_regularizer_loss"]
            self._statistics.observe_pull(torch.stack(ranking_terms).sum(), term, embeddings[1:])
        return terms

    def pop_statistics(self) -> dict[str, float]:
        """`BatchStatistics.pop` of the log_statistics batches since the last call, and the weights."""
        found = self._statistics.pop()
        if not found:
            return {}
        return {**found, **{name: value for name, value in self.weights.items() if self.peak_weights[name]}}

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        config = {
            "ranking": self.ranking,
            "document_regularizer": self.document_regularizer,
            "document_regularizer_weight": self.peak_weights["document_regularizer_weight"],
            "ramp_steps": self.ramp_steps,
        }
        if self.query_regularizer is not None:
            config["query_regularizer"] = self.query_regularizer
            config["query_regularizer_weight"] = self.peak_weights["query_regularizer_weight"]
        return config

    @property
    def citation(self) -> str:
        """BibTeX of the terms."""
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
