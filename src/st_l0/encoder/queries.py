"""Queries without a model: tokenize, look up, done. Only who asks for tensors waits for torch."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import scipy.sparse as sp
from tokenizers import Tokenizer
from typing_extensions import Self

from st_l0.encoder.idf import query_weights as table_of
from st_l0.encoder.query_tokenizer import QueryTokenizer
from st_l0.encoder.word_cache import WordCache
from st_l0.errors import InputError
from st_l0.utils.inputs import as_texts, is_one_text
from st_l0.utils.paths import local_name
from st_l0.utils.sparse import as_csr, as_torch

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_LONGEST = 1 << 62


class QueryLookup:
    """From texts to sparse vectors, by a tokenizer and a weight table that may change between two calls.

    A token counts once a query; its weight is its entry of the table, or nothing where training has moved
    that below 0. In an encoder's table special tokens weigh nothing, and so do unknown words: they all share
    [UNK], so that a weight there would make unrelated texts match.

    The token ids of words are remembered (see `st_l0.encoder.word_cache`). Weights are not: a table that was
    changed counts from the next call on.

    Args:
        tokenizer: Fast Hugging Face tokenizer. One of transformers is copied, so its own truncation and
            padding state is neither used nor changed.
        max_length: Tokens after which a query is cut, on the side where the tokenizer cuts.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | QueryTokenizer, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._kept = slice(-max_length, None) if tokenizer.truncation_side == "left" else slice(max_length)
        plain = tokenizer.backend_tokenizer
        if not isinstance(tokenizer, QueryTokenizer):  # whose own was read for us alone
            plain = Tokenizer.from_str(plain.to_str())
        plain.no_padding()
        plain.no_truncation()
        plain.post_processor = plain.decoder = None  # they add special tokens, and make texts again
        self._plain = plain
        self._token_ids = WordCache(plain)
        self._empty_row = _empty_row(0)

    def __call__(
        self, texts: Sequence[str], table: np.ndarray, max_active_dims: int | None = None
    ) -> sp.csr_matrix:
        """Encode queries for scipy.

        Args:
            texts: The queries.
            table: Weight of each token, ``(vocabulary,)``, float32. A token added to the tokenizer after the
                table was made has no entry and weighs nothing.
            max_active_dims: Largest weights that a query keeps; ``None`` keeps all.

        Returns:
            ``(texts, vocabulary)``, float32, canonical (sorted, no duplicates, no zeros).
        """
        if max_active_dims:
            matrix = self(texts, table)
            if np.diff(matrix.indptr).max(initial=0) <= max_active_dims:
                return matrix
            from st_l0.utils.stock import select_max_active_dims  # which of equal weights: as stock

            dense = as_torch(matrix).to_dense()
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
        import torch

        tokens, weights = self._look_up(text, table)
        return torch.sparse_coo_tensor(
            torch.from_numpy(tokens[None]),
            torch.from_numpy(weights),
            (len(table),),
            is_coalesced=True,
            check_invariants=False,
        )

    def fingerprint(self, table: np.ndarray, prompt: str, max_active_dims: int | None) -> str:
        """SHA-256 over all that the vectors of queries depend on.

        Args:
            table: As above; weights below 0 count as 0.
            prompt: What stands before each query.
            max_active_dims: As above.
        """
        limit = min(int(self.max_length), _LONGEST)
        settings = [self.tokenizer.truncation_side, limit, prompt, max_active_dims]
        digest = hashlib.sha256(f"{json.dumps(settings)}\n{self._plain.to_str()}\n".encode())
        digest.update((np.maximum(table, 0) + 0).astype("<f4").tobytes())  # + 0: no -0
        return digest.hexdigest()

    def _look_up(self, text: str, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ascending tokens (int64) and weights of one text: in lists, as numpy takes longer to begin."""
        (ids,) = self._token_ids((text,))
        tokens = np.array(sorted(set(ids[self._kept])), dtype=np.int64)
        weights = _take(table, tokens)
        if min(weights.tolist(), default=1) > 0:
            return tokens, weights
        kept = _weighing(weights)
        return tokens[kept], weights[kept]


class QueryEncoder:
    """The query side of an inference-free checkpoint: from texts to the vectors that an index searches.

    It gives what `st_l0.SparseEncoder.encode_query` gives as scipy matrices, bit by bit, without a model:
    loading it takes a tenth of a second and no torch.

    Args:
        tokenizer: The queries' tokenizer.
        query_weights: Weight of each token, ``(vocabulary,)``, or what else `st_l0.encoder.idf.query_weights`
            takes, such as a dictionary token to weight. Special tokens weigh nothing.
        prompt: What stands before each query.
        max_active_dims: Largest weights that a query keeps; None keeps all. A query that has more goes
            through torch, which knows the order of equal weights.

    Raises:
        InputError: There is another number of weights than of tokens, or one is no finite number of at least
            0; the message names its token.

    Example:
        >>> encoder = QueryEncoder.from_pretrained("models/st-l0-mini")
        >>> encoder.encode_query(["what is sparse retrieval?"]).shape
        (1, 30522)
    """

    def __init__(
        self,
        tokenizer: QueryTokenizer,
        query_weights: Any,
        *,
        prompt: str = "",
        max_active_dims: int | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.query_weights = table_of(query_weights, tokenizer)
        special = [token for token in tokenizer.all_special_ids if token < len(self.query_weights)]
        self.query_weights[special] = 0
        self.prompt = prompt
        self.max_active_dims = max_active_dims
        self._look_up = QueryLookup(tokenizer, tokenizer.model_max_length)

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub_id: str | Path,
        *,
        revision: str | None = None,
        token: bool | str | None = None,
        cache_folder: str | None = None,
        local_files_only: bool = False,
    ) -> Self:
        """Load the query side of a checkpoint, in any layout that `st_l0.SparseEncoder` loads.

        Args:
            path_or_hub_id: Folder or Hub id.
            revision: Branch, tag or commit on the Hub.
            token: For the Hub; True takes the stored one.
            cache_folder: Where downloads go; None takes that of huggingface_hub.
            local_files_only: Download nothing.

        Raises:
            InputError: There is no model, it is not inference-free, or a file is missing or damaged.
            NeedsModelError: An `InputError` for what only transformers can read, such as a checkpoint without
                tokenizer.json.
        """
        # Read here, as the encoder, which needs no files, imports this module.
        from st_l0.encoder.hub_options import HubOptions
        from st_l0.encoder.query_files import read_query_side

        hub_options = HubOptions(token, cache_folder, revision, local_files_only)
        side = read_query_side(local_name(path_or_hub_id), hub_options)
        # A stock training may have moved weights below 0, where they count as 0.
        table = np.maximum(side.table, np.float32(0))
        return cls(side.tokenizer, table, prompt=side.prompt, max_active_dims=side.max_active_dims)

    @property
    def vocabulary_size(self) -> int:
        """Length of the vectors."""
        return len(self.query_weights)

    def encode_query(
        self, inputs: str | Iterable[str], *, convert_to_scipy: Literal[True] = True
    ) -> sp.csr_matrix:
        """Encode queries.

        Args:
            inputs: The queries, in anything that `st_l0.utils.inputs.as_texts` takes; one alone is one row.
            convert_to_scipy: For calls that fit `st_l0.SparseEncoder` too; tensors are its affair.

        Returns:
            ``(queries, vocabulary)``, float32, canonical (sorted, no duplicates, no zeros).

        Raises:
            InputError: ``inputs`` are no texts, or one of them is none; or ``convert_to_scipy`` is off.
        """
        if not convert_to_scipy:
            raise InputError("a QueryEncoder gives scipy matrices only: take a SparseEncoder for tensors")
        if type(inputs) is str and inputs.isascii():  # most queries: the rest is in a tenth of their time
            texts = [inputs]
        else:
            texts = as_texts([inputs] if is_one_text(inputs) else inputs)
        if self.prompt:
            texts = [self.prompt + text for text in texts]
        return self._look_up(texts, self.query_weights, self.max_active_dims)

    def query_fingerprint(self) -> str:
        """SHA-256 over all that the vectors depend on; the same as that of `st_l0.SparseEncoder`."""
        return self._look_up.fingerprint(self.query_weights, self.prompt, self.max_active_dims)


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
