"""Queries without a model: tokenize, look up, done."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
import torch
from tokenizers import Tokenizer

from st_l0.encoder.word_cache import WordCache
from st_l0.utils.sparse import as_csr, as_torch
from st_l0.utils.stock import select_max_active_dims

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QueryEncoder:
    """Tokenizer and weight table, from texts to sparse vectors.

    A token counts once a query; its weight is its entry of the table, or nothing where training has moved
    that below 0. In an encoder's table special tokens weigh nothing, and so do unknown words: they all share
    [UNK], so that a weight there would make unrelated texts match.

    The token ids of words are remembered (see `st_l0.encoder.word_cache`). Weights are not: a table that was
    changed counts from the next call on.

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
        if len(texts) == 1:
            # The constructor's checks would take longer than all the rest of a query.
            row = self._empty_row
            if row.shape[1] != len(table):
                row = self._empty_row = _empty_row(len(table))
            row = copy.copy(row)
            tokens, row.data = self._look_up(texts[0], table)
            row.indices, row.indptr = tokens.astype(np.int32), np.array([0, len(tokens)], dtype=np.int32)
            return row
        found = self._token_ids(texts)
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        if lengths.max(initial=0) > self.max_length:
            found = [ids[self._kept] for ids in found]
            lengths = np.fromiter(map(len, found), np.int64, len(found))
        ids = np.fromiter(chain.from_iterable(found), np.int64, lengths.sum())
        # Text and token in one number: all texts are sorted at once.
        places = np.repeat(np.arange(len(found)) << 32, lengths) | ids
        places.sort()
        first = np.diff(places, prepend=-1) != 0
        places = places[first]
        rows, tokens = places >> 32, places & 0xFFFFFFFF
        weights = _take(table, tokens)
        if not weights.min(initial=1) > 0:
            kept = _weighing(weights)
            rows, tokens, weights = rows[kept], tokens[kept], weights[kept]
        ends = np.zeros(len(found) + 1, dtype=np.int32)
        np.cumsum(np.bincount(rows, minlength=len(found)), out=ends[1:])
        matrix = sp.csr_matrix((weights, tokens.astype(np.int32), ends), shape=(len(found), len(table)))
        matrix.has_canonical_format = True
        return matrix

    def vector(self, text: str, table: np.ndarray) -> torch.Tensor:
        """Encode one query for torch: a coalesced COO tensor ``(vocabulary,)``; arguments as above."""
        tokens, weights = self._look_up(text, table)
        return torch.sparse_coo_tensor(
            torch.from_numpy(tokens[None]),
            torch.from_numpy(weights),
            (len(table),),
            is_coalesced=True,
            check_invariants=False,
        )

    def _look_up(self, text: str, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ascending tokens (int64) and weights of one text: in lists, as numpy takes longer to begin."""
        (ids,) = self._token_ids((text,))
        tokens = np.array(sorted(set(ids[self._kept])), dtype=np.int64)
        weights = _take(table, tokens)
        if min(weights.tolist(), default=1) > 0:
            return tokens, weights
        kept = _weighing(weights)
        return tokens[kept], weights[kept]


def _take(table: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    try:
        weights: np.ndarray = table[tokens]
    except IndexError:  # tokens without an entry
        weights = np.append(table, np.float32(0))[np.minimum(tokens, len(table))]
    return weights


def _weighing(weights: np.ndarray) -> np.ndarray:
    return ~(weights <= 0)  # not-a-number stays, for others to find


def _empty_row(columns: int) -> sp.csr_matrix:
    row = sp.csr_matrix((1, columns), dtype=np.float32)
    row.has_canonical_format = True
    return row
