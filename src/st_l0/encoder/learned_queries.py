"""Query weights that are learned: the table of an inference-free encoder as a function of what is trained.

While it is trained, the table is parametrized (`torch.nn.utils.parametrize`): the stock module goes on
reading its ``weight``, which is now computed, never negative, and 0 for special tokens. A checkpoint holds
the computed table in a stock module.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from sentence_transformers.base.modules import Router
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding
from torch import Tensor, nn
from torch.nn.utils import parametrize

from st_l0.encoder.modules import EncoderModules, special_ids, text_tokenizer


class TrainedTable(nn.Module):
    """A weight for each token, ``relu(x)``; special tokens stay at 0.

    Args:
        token_mask: 0 for special tokens, 1 for others, ``(vocabulary,)``.
    """

    token_mask: Tensor

    def __init__(self, token_mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("token_mask", token_mask, persistent=False)

    def forward(self, parameter: Tensor) -> Tensor:
        """The table ``(vocabulary,)`` of the parameter ``(vocabulary,)``."""
        return parameter.relu() * self.token_mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The parameter that gives a table."""
        return weight


class LearnedScores(nn.Module):
    """A score for each token from its word embedding e, ``log(1 + relu(w . e + b))``; special tokens: 0.

    Only w and b are learned, so that tokens that no training query holds get a score too. It starts at 1 for
    every token, as SPLADE-doc.

    Args:
        embeddings: Word embeddings of the base model, ``(vocabulary, hidden)``; they are copied and stay as
            they are.
        token_mask: 0 for special tokens, 1 for others, ``(vocabulary,)``.

    Source: Li-LSR, Nardini et al., 2025, https://arxiv.org/abs/2505.01452.
    """

    embeddings: Tensor
    token_mask: Tensor

    def __init__(self, embeddings: Tensor, token_mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("embeddings", embeddings.detach().clone(), persistent=False)
        self.register_buffer("token_mask", token_mask, persistent=False)

    def forward(self, parameter: Tensor) -> Tensor:
        """The table ``(vocabulary,)`` of w and b, ``(hidden + 1,)``."""
        return (self.embeddings @ parameter[:-1] + parameter[-1]).relu().log1p() * self.token_mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Where it starts, whatever the table was."""
        start = weight.new_zeros(self.embeddings.shape[1] + 1)
        start[-1] = math.e - 1
        return start


def train_query_table(modules: EncoderModules, kind: str) -> None:
    """Make the query weights of an inference-free encoder trainable.

    Args:
        modules: The modules of the encoder.
        kind: ``"trained_table"`` (one weight a token, from the table that is there) or ``"learned_scores"``
            (`LearnedScores`).
    """
    query = cast(Any, modules.query)
    token_mask = torch.ones_like(query.weight)
    token_mask[special_ids(text_tokenizer(modules.transformer), len(token_mask))] = 0
    if kind == "learned_scores":
        model = cast(Any, modules.transformer.model)
        embeddings = model.get_input_embeddings().weight[: len(token_mask)]
        parametrization: nn.Module = LearnedScores(embeddings, token_mask)
    else:
        parametrization = TrainedTable(token_mask)
    query.weight.requires_grad_(True)
    parametrize.register_parametrization(query, "weight", parametrization)


def fix_query_table(modules: EncoderModules) -> None:
    """Keep the query weights of an inference-free encoder from being trained; its checkpoints say so too."""
    query = cast(Any, modules.query)
    query.weight.requires_grad_(False)
    query.frozen = True


def trained_parameter(modules: EncoderModules | None) -> nn.Parameter | None:
    """What is trained of the query side; ``None`` where the weights are fixed or a model makes them."""
    if modules is None or modules.query is None or not parametrize.is_parametrized(modules.query, "weight"):
        return None
    parametrizations: Any = modules.query.parametrizations
    return cast(nn.Parameter, parametrizations["weight"].original)


@contextmanager
def stock_query_side(router: nn.Module, modules: EncoderModules | None) -> Iterator[None]:
    """Put the computed table in a stock module in the place of the trained one, for the time of a save."""
    if trained_parameter(modules) is None:
        yield
        return
    trained: Any = cast(EncoderModules, modules).query
    plain = SparseStaticEmbedding(trained.tokenizer, weight=trained.weight.detach().clone(), frozen=True)
    route: Any = cast(Router, router).sub_modules["query"]
    route[0] = plain
    try:
        yield
    finally:
        route[0] = trained
