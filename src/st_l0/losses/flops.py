"""FLOPS, and the published methods that are FLOPS of some of the weights.

One method has one class. `FlopsLoss` with its options is for what no class is named for: combinations.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from st_l0.errors import InputError
from st_l0.losses import citations
from st_l0.losses.document_frequency import DocumentFrequencyWeights
from st_l0.losses.given import as_token_weights
from st_l0.losses.regularizers import Regularizer, inverse


class FlopsLoss(Regularizer):
    """FLOPS: the sum over the vocabulary of the squared mean activation.

    For the means ``m_j`` of `Regularizer`, without options ``m_j = mean_i |w_ij|``::

        loss = sum_j m_j ** 2

    Without options it is plain FLOPS. For one method take the class of its name: `L0MaskFlopsLoss`,
    `L0ActivationFlopsLoss`, `IDFFlopsLoss`, `DFFlopsLoss`. The options are for combinations of them, such as
    ``FlopsLoss(threshold=200, extra_logs=1)``, and for the top-k baseline.

    Args:
        options: As of `Regularizer`, by name.

    Raises:
        InputError: As `Regularizer`.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> FlopsLoss().compute_loss_from_embeddings(documents)
        tensor(2.)

    Source: Paria et al., 2020, https://arxiv.org/abs/2004.05665; SPLADE, https://arxiv.org/abs/2107.05720
    """

    paper = citations.FLOPS

    def penalty(self, means: Tensor) -> Tensor:
        """The squares."""
        return means.square()


class L0MaskFlopsLoss(FlopsLoss):
    """FLOPS over the documents that have more than ``threshold`` active dims.

    For activations ``w`` of shape ``(documents, vocabulary)``::

        loss = sum_j (mean_i mask_i * |w_ij|) ** 2,    mask_i = active_dims_i > threshold

    The mean counts the free documents too, so the penalty fades as documents become sparse.

    Args:
        threshold: Active dims that a document keeps for free.
        positions: As of `Regularizer`.

    Raises:
        InputError: ``threshold`` is negative, or ``positions`` is not positive.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> L0MaskFlopsLoss(1).compute_loss_from_embeddings(documents)
        tensor(1.2500)

    Source: Shen et al., 2025, https://arxiv.org/abs/2504.14839
    """

    threshold: int

    def __init__(self, threshold: int, *, positions: int = 1) -> None:
        if threshold is None:
            raise InputError("threshold must be 0 or more active dims, not None: FlopsLoss penalises all")
        super().__init__(threshold=threshold, positions=positions)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"threshold": self.threshold, "positions": self.positions}


class L0ActivationFlopsLoss(FlopsLoss):
    """FLOPS of activations that are logged for the penalty only: the decoupled l0 activation.

    For activations ``w`` of shape ``(documents, vocabulary)``, and ``log1p^k`` the k-fold log(1 + x)::

        loss = sum_j (mean_i log1p^k(|w_ij|)) ** 2

    The ranking loss sees ``w``. Where the model's own activation has the logs already, take `FlopsLoss`.

    Args:
        extra_logs: Number k of logs, 1 or more.
        positions: As of `Regularizer`.

    Raises:
        InputError: An argument is not positive.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> L0ActivationFlopsLoss().compute_loss_from_embeddings(documents)  # log(2) ** 2
        tensor(0.4805)

    Source: Shen et al., 2025, https://arxiv.org/abs/2504.14839
    """

    def __init__(self, extra_logs: int = 1, *, positions: int = 1) -> None:
        if not extra_logs >= 1:
            raise InputError(f"extra_logs must be 1 or more, not {extra_logs}; FlopsLoss takes none")
        super().__init__(extra_logs=extra_logs, positions=positions)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"extra_logs": self.extra_logs, "positions": self.positions}


class IDFFlopsLoss(FlopsLoss):
    """IDF-aware FLOPS: rare tokens cost less, in a model whose documents hold effective weights.

    For effective weights ``u = idf * w`` of shape ``(documents, vocabulary)``, as a model with binary queries
    gives them::

        loss = sum_j (mean_i |u_ij| / idf_j) ** 2

    which is FLOPS of ``w``; a token with ``idf_j = 0`` costs nothing. A model that multiplies by the IDF on
    the query side gives ``w`` itself: there `FlopsLoss` is the same method.

    Args:
        idf: IDF of each token, ``(vocabulary,)``, finite and 0 or more.
        positions: As of `Regularizer`.

    Raises:
        InputError: An IDF is negative or not finite, or ``positions`` is not positive.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> IDFFlopsLoss(torch.tensor([2.0, 1.0, 0.5])).compute_loss_from_embeddings(documents)
        tensor(4.2500)

    Source: Geng et al., 2024, https://arxiv.org/abs/2411.04403
    """

    def __init__(self, idf: Tensor, *, positions: int = 1) -> None:
        super().__init__(token_weights=inverse(as_token_weights(idf, "idf")), positions=positions)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        return {"positions": self.positions}


class DFFlopsLoss(FlopsLoss):
    """DF-FLOPS: a token costs more the more documents use it.

    For activations ``w`` of shape ``(documents, vocabulary)`` and the factors ``c`` of
    `DocumentFrequencyWeights`, which follow the training::

        loss = sum_j (c_j * mean_i |w_ij|) ** 2

    Args:
        vocabulary_size: Number of tokens.
        alpha: The share of documents at which the factor is 1/2, between 0 and 1.
        beta: Steepness there, > 0.
        refresh_steps: Batches between two estimates of the shares.
        positions: As of `Regularizer`.

    Raises:
        InputError: An argument is out of its range.

    Example:
        >>> import torch
        >>> documents = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 1.0]])
        >>> DFFlopsLoss(3, alpha=0.5).compute_loss_from_embeddings(documents)  # factors 1/2, 0, 1
        tensor(1.2500)

    Source: Porco et al., 2025, https://arxiv.org/abs/2505.15070
    """

    document_frequency: DocumentFrequencyWeights

    def __init__(
        self,
        vocabulary_size: int,
        *,
        alpha: float = 0.1,
        beta: float = 10.0,
        refresh_steps: int = 100,
        positions: int = 1,
    ) -> None:
        frequency = DocumentFrequencyWeights(
            vocabulary_size, alpha=alpha, beta=beta, refresh_steps=refresh_steps
        )
        super().__init__(token_weights=frequency, positions=positions)

    def get_config_dict(self) -> dict[str, Any]:
        """Settings, for model cards."""
        frequency = self.document_frequency
        return {
            "alpha": frequency.alpha,
            "beta": frequency.beta,
            "refresh_steps": frequency.refresh_steps,
            "positions": self.positions,
        }
