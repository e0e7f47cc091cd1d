"""Queries without a model: tokenize, look up, done."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from sentence_transformers.util import select_max_active_dims
from tokenizers import Tokenizer

from st_l0.vectors import as_csr, as_torch
from st_l0.word_cache import WordCache

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QueryEncoder:
    """Tokenizer and weight table, from texts to sparse vectors.

    A token counts once a query; its weight is its entry of the table, or nothing where training has moved
    that below 0. In an encoder's table special tokens weigh nothing, and so do unknown words: they all share
    [UNK], so that a weight there would make unrelated texts match.

    The token ids of words are remembered (see `st_l0.word_cache`). Weights are not: a table that was changed
    counts from the next call on.

    Args:
        tokenizer: fast Hugging Face tokenizer. It is copied, so its own truncation and padding state is
            neither used nor changed.
        max_length: tokens after which a query is cut, on the side where the tokenizer cuts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._kept = slice(-max_length, None) if tokenizer.truncation_side == "left" else slice(max_length)
        plain = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        plain.no_padding()
        plain.no_truncation()
        self._token_ids = WordCache(plain)
        self._empty_row = _empty_row(0)

    def __call__(
        self, texts: Sequence[str], table: np.ndarray, max_active_dims: int | None = None
    ) -> sp.csr_matrix:
        """Encode queries for scipy.

        Args:
            texts: the queries.
            table: weight of each token, ``(vocabulary,)``, float32. A token added to the tokenizer after the
                table was made has no entry and weighs nothing.
            max_active_dims: largest weights that a query keeps; ``None`` keeps all.

        Returns:
            ``(texts, vocabulary)``, float32, canonical (sorted, no duplicates, no zeros).
        """
        if max_active_dims:
            dense = as_torch(self(texts, table)).to_dense()
            return as_csr(select_max_active_dims(dense, max_active_dims))
        tokens, weights, lengths = self._look_up(self._rows(texts), table)
        columns = tokens.astype(np.int32)
        if len(texts) == 1:
            # The constructor's checks take longer than all the rest of a query.
            row = self._empty_row
            if row.shape[1] != len(table):
                row = self._empty_row = _empty_row(len(table))
            row = copy.copy(row)
            row.data, row.indices, row.indptr = weights, columns, np.array([0, len(columns)], dtype=np.int32)
            return row
        ends = np.zeros(len(texts) + 1, dtype=np.int32)
        np.cumsum(lengths, out=ends[1:])
        matrix = sp.csr_matrix((weights, columns, ends), shape=(len(texts), len(table)))
        matrix.has_canonical_format = True
        return matrix

    def vector(self, text: str, table: np.ndarray, max_active_dims: int | None = None) -> torch.Tensor:
        """Encode one query for torch: a coalesced COO tensor ``(vocabulary,)``; arguments as above."""
        if max_active_dims:
            return as_torch(self((text,), table, max_active_dims))[0]
        tokens, weights, _ = self._look_up(self._rows((text,)), table)
        return torch.sparse_coo_tensor(
            torch.from_numpy(tokens[None]),
            torch.from_numpy(weights),
            (len(table),),
            is_coalesced=True,
            check_invariants=False,
        )

    def _rows(self, texts: Sequence[str]) -> list[list[int]]:
        """The distinct tokens of each text, ascending."""
        return [sorted(set(ids[self._kept])) for ids in self._token_ids(texts)]

    def _look_up(
        self, rows: list[list[int]], table: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, list[int] | np.ndarray]:
        """Tokens (int64) and weights of all rows, where there is a weight, and how many each row has."""
        lengths = list(map(len, rows))
        tokens = np.fromiter(chain.from_iterable(rows), np.int64, sum(lengths))
        try:
            weights = table[tokens]
        except IndexError:
            weights = np.append(table, np.float32(0))[np.minimum(tokens, len(table))]
        # For one query what numpy needs to begin counts, for many the number of weights.
        if (weights.min() if len(tokens) > 64 else min(weights.tolist(), default=1.0)) > 0:
            return tokens, weights, lengths
        kept = ~(weights <= 0)  # not-a-number stays, for others to find
        return tokens[kept], weights[kept], np.bincount(_repeated(lengths)[kept], minlength=len(rows))


def _empty_row(columns: int) -> sp.csr_matrix:
    row = sp.csr_matrix((1, columns), dtype=np.float32)
    row.has_canonical_format = True
    return row


def _repeated(lengths: list[int] | np.ndarray) -> np.ndarray:
    """The number of each row, as often as it has tokens."""
    return np.repeat(np.arange(len(lengths)), np.asarray(lengths, dtype=np.int64))
