"""Losses that make vectors sparse: one family with one face, ``compute_loss_from_embeddings``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.losses import citations
from st_l0.losses.document_frequency import DocumentFrequencyWeights
from st_l0.losses.given import as_rows, as_token_weights
from st_l0.utils.distributed import all_reduce_sum


class Regularizer(nn.Module):
    """What FLOPS and l1 share: which weights are penalised, and the mean over all devices.

    Of the activations ``w``, ``(documents, vocabulary)``, each vocabulary entry gets one mean over the
    documents of **all** devices::

        m_j     = c_j / N * sum_i mask_i * rest_ij * log1p^k(|w_ij|)
        mask_i  = active_dims_i > threshold
        rest_ij = |w_ij| is not among the top_k largest of document i

    where a condition is 1 if it holds, else 0, and what is not asked for holds always. ``penalty`` of the
    subclass turns the means into a number. The value and its gradient do not depend on the
    number of devices that share a batch (stock `FlopsLoss` computes a penalty for each device's part, which
    is larger the smaller the part).

    Use one as ``document_regularizer`` or ``query_regularizer`` of stock `SpladeLoss` and `CachedSpladeLoss`,
    or of `SparseRetrievalLoss`.

    Args:
        threshold: Active dims that a document keeps for free (l0 mask); one with more is penalised as a
            whole. ``None`` penalises all. N counts the free documents too, so the penalty fades as documents
            become sparse.
        top_k: The k largest weights of a document are free, the others are penalised (a baseline).
        extra_logs: Number k of logs taken before the mean: the decoupled l0 activation, which ranks with
            w and penalises log(1 + w). 0 where the model's own activation has the logs already.
        token_weights: Factor c of each vocabulary entry, ``(vocabulary,)``, or
            `DocumentFrequencyWeights` for factors that follow the training (DF-FLOPS). With
            ``token_weights=inverse(idf)`` FLOPS of effective weights ``u = idf * w`` is FLOPS of ``w``.
        positions: Number of documents a query has. With 1 all documents are pooled into one mean, as in
            stock. With n the batch is cut into n equal blocks (all positives, all first negatives ...), each
            has its own penalty, and they are summed: the reference implementation's form, for published
            weights; `convert_weight` converts.

    Raises:
        InputError: An argument is negative, or a token weight is negative or not finite.

    Source: Mask and activation: Shen et al., 2025, https://arxiv.org/abs/2504.14839. Effective weights: Geng
    et al., 2024, https://arxiv.org/abs/2411.04403.
    """

    paper: str

    def __init__(
        self,
        *,
        threshold: int | None = None,
        top_k: int | None = None,
        extra_logs: int = 0,
        token_weights: Tensor | DocumentFrequencyWeights | None = None,
        positions: int = 1,
    ) -> None:
        super().__init__()
        if threshold is not None and not threshold >= 0:
            raise InputError(f"threshold must be 0 or more active dims, not {threshold}")
        if top_k is not None and not top_k >= 0:
            raise InputError(f"top_k must be 0 or more dims, not {top_k}")
        if not extra_logs >= 0:
            raise InputError(f"extra_logs must be 0 or more, not {extra_logs}")
        if not positions >= 1:
            raise InputError(f"positions must be 1 or more, not {positions}")
        self.threshold = threshold
        self.top_k = top_k
        self.extra_logs = extra_logs
        self.positions = positions
        self.document_frequency: DocumentFrequencyWeights | None = None
        self.register_buffer("token_weights", None, persistent=False)
        if isinstance(token_weights, DocumentFrequencyWeights):
            self.document_frequency = token_weights
        elif token_weights is not None:
            self.token_weights = as_token_weights(token_weights, "token_weights")

    def compute_loss_from_embeddings(self, embeddings: Tensor) -> Tensor:
        """Penalty of this batch.

        Args:
            embeddings: Vectors of this device, ``(documents, vocabulary)``; with ``positions`` n all
                documents of the first position come first. The devices need not hold equally many.

        Returns:
            The penalty, a scalar.

        Raises:
            InputError: ``embeddings`` is no such tensor, the number of documents is not a multiple of
                ``positions``, or the token weights belong to another vocabulary.
        """
        embeddings = as_rows(embeddings, "embeddings")
        if len(embeddings) % self.positions:
            raise InputError(
                f"{len(embeddings)} documents cannot be cut into {self.positions} equal positions"
            )
        # Half precision overflows in the square and loses small means in the sum.
        weights = embeddings.abs() if embeddings.dtype == torch.float64 else embeddings.float().abs()
        active = weights.detach() > 0
        for _ in range(self.extra_logs):
            weights = weights.log1p()
        if self.threshold is not None:
            weights = weights * (active.sum(1, keepdim=True) > self.threshold)
        if self.top_k is not None:
            largest = weights.detach().topk(min(self.top_k, weights.shape[1])).indices
            weights = weights.scatter(1, largest, 0)
        blocks = weights.view(self.positions, -1, weights.shape[1])
        count = torch.tensor(float(blocks.shape[1]), dtype=weights.dtype, device=weights.device)
        means = all_reduce_sum(blocks.sum(1)) / all_reduce_sum(count)
        factors = self._factors(active)
        if factors is not None:
            means = means * factors.to(means)
        return self.penalty(means).sum()

    def _factors(self, active: Tensor) -> Tensor | None:
        if self.document_frequency is not None:
            return self.document_frequency.observe(active)
        if self.token_weights is not None and self.token_weights.shape != active.shape[1:]:
            raise InputError(
                f"token_weights of {len(self.token_weights)} tokens do not fit vectors of {active.shape[1]}"
            )
        return self.token_weights

    def penalty(self, means: Tensor) -> Tensor:
        """Penalty of each entry, from the means ``(positions, vocabulary)``."""
        raise NotImplementedError

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        token_weights = self.document_frequency or ("fixed" if self.token_weights is not None else None)
        return {
            "threshold": self.threshold,
            "top_k": self.top_k,
            "extra_logs": self.extra_logs,
            "token_weights": token_weights and str(token_weights),
            "positions": self.positions,
        }

    @property
    def citation(self) -> str:
        """BibTeX of the papers whose methods it uses."""
        papers = [self.paper]
        if self.threshold is not None or self.extra_logs:
            papers.append(citations.L0)
        if self.token_weights is not None:
            papers.append(citations.IDF_AWARE_FLOPS)
        if self.document_frequency is not None:
            papers.append(citations.DF_FLOPS)
        return "".join(papers)


class L1Loss(Regularizer):
    """The mean l1 norm of the vectors.

    With the means ``m_j`` of `Regularizer`::

        loss = sum_j m_j

    ``L1Loss(top_k=k)`` is the top-k baseline: it pulls all but the k largest weights of a document to 0.

    Args:
        options: As of `Regularizer`, by name.

    Raises:
        InputError: As `Regularizer`.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> L1Loss().compute_loss_from_embeddings(documents)
        tensor(2.)
        >>> L1Loss(top_k=1).compute_loss_from_embeddings(documents)
        tensor(0.5000)

    Source: SNRM, Zamani et al., 2018, https://doi.org/10.1145/3269206.3271800; SPLADE,
    https://arxiv.org/abs/2107.05720.
    """

    paper = citations.SNRM

    def penalty(self, means: Tensor) -> Tensor:
        """The means themselves."""
        return means


def inverse(idf: Tensor) -> Tensor:
    """``1 / idf``, and 0 where the IDF is 0: such a token is in no effective weight.

    Args:
        idf: IDF of each token, ``(vocabulary,)``, 0 or more.

    Returns:
        The same shape and dtype.

    Example:
        >>> inverse(torch.tensor([2.0, 0.0, 0.5]))
        tensor([0.5000, 0.0000, 2.0000])

    Source: IDF-aware FLOPS, https://arxiv.org/abs/2411.04403.
    """
    return torch.where(idf > 0, 1 / idf.clamp(min=torch.finfo(idf.dtype).tiny), 0)


def convert_weight(weight: float, positions: int, *, to: str) -> float:
    """Weight of FLOPS in the other reduction: pooled over all documents, or per position and summed.

    Where the positions have equal means, the sum over n positions is n times the pooled value, so that a
    published (per-position) weight counts n times as much when pooled. Positions are hardly ever quite equal
    (25.3 against 12.1 in one example of two), so this is right to a few percent.

    Args:
        weight: The weight in the other reduction.
        positions: Documents of a query.
        to: ``"pooled"`` or ``"per_position"``, the reduction wanted.

    Raises:
        InputError: ``to`` is neither, or ``positions`` is not positive.

    Example:
        >>> convert_weight(0.04, 2, to="pooled")
        0.08
    """
    if to not in ("pooled", "per_position") or positions < 1:
        raise InputError(
            f"convert to 'pooled' or 'per_position' and 1 or more positions, not {to!r}, {positions}"
        )
    return weight * positions if to == "pooled" else weight / positions
