"""Factors of DF-FLOPS, from document frequencies that are re-estimated while training."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.utils.distributed import all_reduce_sum


class DocumentFrequencyWeights(nn.Module):
    """A factor for each token that grows with the share of documents that use it.

    With x the share of documents in which a token is active::

        w = 1 / (1 + (x ** log_alpha(2) - 1) ** beta)

    so that w is 0 at x = 0, 1/2 at x = alpha, and 1 at x = 1. The shares are counted over the documents of
    all devices since the last estimate, first from the first batch alone.

    Args:
        vocabulary_size: Number of tokens.
        alpha: The share at which the factor is 1/2, between 0 and 1.
        beta: Steepness there.
        refresh_steps: Batches between two estimates.

    Raises:
        InputError: An argument is out of its range.

    Example:
        >>> import torch
        >>> weights = DocumentFrequencyWeights(3, alpha=0.5)
        >>> weights.observe(torch.tensor([[True, False, True], [False, False, True]]))
        tensor([0.5000, 0.0000, 1.0000])

    Source: DF-FLOPS, Porco et al., 2025, https://arxiv.org/abs/2505.15070. There the frequencies are those of
    a validation pass every 100 steps; here they are those of the training batches, which costs nothing.
    """

    weights: Tensor
    counts: Tensor
    documents: Tensor

    def __init__(
        self, vocabulary_size: int, *, alpha: float = 0.1, beta: float = 10.0, refresh_steps: int = 100
    ) -> None:
        super().__init__()
        if not 0 < alpha < 1:
            raise InputError(f"alpha must be between 0 and 1, not {alpha}")
        if not beta > 0:
            raise InputError(f"beta must be positive, not {beta}")
        if refresh_steps < 1:
            raise InputError(f"refresh_steps must be 1 or more, not {refresh_steps}")
        self.alpha = alpha
        self.beta = beta
        self.refresh_steps = refresh_steps
        # Buffers, so that a resumed run goes on with the same factors.
        self.register_buffer("weights", torch.zeros(vocabulary_size))
        self.register_buffer("counts", torch.zeros(vocabulary_size, dtype=torch.int64))
        self.register_buffer("documents", torch.zeros((), dtype=torch.int64))
        self._batches = 0

    @torch.no_grad()
    def observe(self, active: Tensor) -> Tensor:
        """Count a batch of this device, estimate anew when it is time, and give the factors.

        Args:
            active: Which document uses which token, bool ``(documents, vocabulary)``.

        Returns:
            The factors, float32 ``(vocabulary,)``, equal on all devices. In eval mode nothing is counted.

        Raises:
            InputError: Another vocabulary.
        """
        if active.shape[1] != len(self.counts):
            raise InputError(
                f"document frequencies of {len(self.counts)} tokens do not fit vectors of {active.shape[1]}"
            )
        self.to(active.device)
        if not self.training:
            return self.weights
        # Of all devices at once, so that each holds the same state and any one can save it.
        self.counts += all_reduce_sum(active.sum(0))
        self.documents += all_reduce_sum(torch.tensor(len(active), device=active.device))
        if self._batches % self.refresh_steps == 0:
            self.weights = self._factors()
            self.counts.zero_()
            self.documents.zero_()
        self._batches += 1
        return self.weights

    def _factors(self) -> Tensor:
        # In double precision, which not every device has: numpy's, on the CPU.
        share = self.counts.cpu().numpy() / self.documents.item()
        with np.errstate(divide="ignore"):  # a share of 0 gives infinity, and with it the factor 0
            past = share ** (math.log(2) / math.log(self.alpha)) - 1
            factors = 1 / (1 + np.maximum(past, 0) ** self.beta)
        return torch.from_numpy(factors.astype(np.float32)).to(self.counts.device)

    def get_extra_state(self) -> int:
        """The number of batches seen, which `state_dict` holds too."""
        return self._batches

    def set_extra_state(self, state: int) -> None:
        """Take over a number of batches seen."""
        self._batches = state

    def __str__(self) -> str:
        return (
            f"document frequency (alpha {self.alpha}, beta {self.beta}, every {self.refresh_steps} batches)"
        )
