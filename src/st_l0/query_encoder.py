"""Queries without a model: tokenize, look up, done."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp
from tokenizers import Tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class QueryEncoder:
    """Tokenizer and weight table, from texts to CSR rows.

    A token counts once a query; its weight is its entry of the table, or nothing where training has moved
    that below 0. In an encoder's table special tokens weigh nothing, and so do unknown words: they all share
    [UNK], so that a weight there would make unrelated texts match.

    Args:
        tokenizer: fast Hugging Face tokenizer. It is copied, so its own truncation and padding state is
            neither used nor changed.
        max_length: tokens after which a query is cut.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.max_length = max_length
        self._tokenizer = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        self._tokenizer.no_padding()
        if max_length < 1 << 30:  # transformers says "no limit" by a huge number
            self._tokenizer.enable_truncation(max_length)
        else:
            self._tokenizer.no_truncation()

    def __call__(self, texts: Sequence[str], table: np.ndarray) -> sp.csr_matrix:
        """Encode queries.

        Args:
            texts: the queries.
            table: weight of each token, ``(vocabulary,)``, float32. A token added to the tokenizer after the
                table was made has no entry and weighs nothing.

        Returns:
            ``(texts, vocabulary)``, float32, canonical (sorted, no duplicates, no zeros).
        """
        if len(texts) == 1:
            tokens = [sorted(set(self._tokenizer.encode(texts[0], add_special_tokens=False).ids))]
        else:
            encoded = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
            tokens = [sorted(set(one.ids)) for one in encoded]
        indptr = np.zeros(len(tokens) + 1, dtype=np.int32)
        np.cumsum([len(row) for row in tokens], out=indptr[1:])
        indices = np.fromiter(chain.from_iterable(tokens), dtype=np.int32, count=int(indptr[-1]))
        known = indices < len(table)
        weights = np.zeros(len(indices), dtype=np.float32)
        weights[known] = np.maximum(table[indices[known]], 0)
        if not weights.all():
            kept = weights != 0
            indptr = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)[indptr]
            indices, weights = indices[kept], weights[kept]
        matrix = sp.csr_matrix((weights, indices, indptr), shape=(len(tokens), len(table)))
        matrix.has_canonical_format = True
        return matrix
