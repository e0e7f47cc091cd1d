"""Why a document got its score."""

from __future__ import annotations

from dataclasses import dataclass

import scipy.sparse as sp
from transformers import PreTrainedTokenizerBase

from st_l0.errors import InputError


@dataclass(frozen=True)
class TokenMatch:
    """What one token adds to a score: ``contribution = query_weight * document_weight``."""

    token: str
    query_weight: float
    document_weight: float
    contribution: float


@dataclass(frozen=True)
class Explanation:
    """A score and its parts, largest first; the contributions sum to the score."""

    score: float
    matches: tuple[TokenMatch, ...]


def explain_match(
    query: sp.csr_matrix, document: sp.csr_matrix, tokenizer: PreTrainedTokenizerBase
) -> Explanation:
    """Split the dot product of two ``(1, vocabulary)`` rows into its tokens.

    Raises:
        InputError: More or less than one row.
    """
    if query.shape[0] != 1 or document.shape[0] != 1:
        raise InputError(
            f"explain takes one query and one document, not {query.shape[0]} and {document.shape[0]}"
        )
    weights = dict(zip(document.indices.tolist(), document.data.tolist(), strict=True))
    matches = [
        TokenMatch(
            str(tokenizer.convert_ids_to_tokens(token)), weight, weights[token], weight * weights[token]
        )
        for token, weight in zip(query.indices.tolist(), query.data.tolist(), strict=True)
        if token in weights
    ]
    matches.sort(key=lambda match: -match.contribution)
    return Explanation(sum(match.contribution for match in matches), tuple(matches))
