"""Documents as the server takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.index.opensearch.address import check_field
from st_l0.index.opensearch.record import ENTRIES, FIELDS, ID, TEXT, VECTORS, WORDS, Record
from st_l0.index.protocol import Id

_SMALLEST = np.finfo(np.float32).tiny  # the server refuses less; no score shows the difference
_LONGEST_ID = 512  # bytes
_LONGEST_WORD = 8000  # characters, of at most four bytes; Lucene takes terms of 32,766 bytes
SPARSE_VECTOR_TOKENS = 32_768  # from there on SEISMIC answers with an error, and finds nothing above 65,536


def truncate(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weights as ``rank_features`` keeps them: 9 significant bits, cut, up to 0.4 % low.

    Example:
        >>> truncate(np.array([1.0, 1.7, 0.3], np.float32)).tolist()
        [1.0, 1.69921875, 0.2998046875]
    """
    bits = np.ascontiguousarray(weights, dtype=np.float32).view(np.int32)
    return ((bits >> 15) << 15).view(np.float32)


def check_vectors(matrix: sp.csr_matrix, record: Record) -> sp.csr_matrix:
    """Documents' vectors, without weights too small to count.

    Raises:
        InputError: A weight is negative, or the field takes no such tokens.
    """
    low = np.flatnonzero(matrix.data < _SMALLEST)
    if len(low):
        negative = low[matrix.data[low] < 0]
        if len(negative):
            row = int(np.searchsorted(matrix.indptr, negative[0], side="right")) - 1
            raise InputError(
                f"vector {row} has a negative weight ({matrix.data[negative[0]]:.4g} of token "
                f"{matrix.indices[negative[0]]}), which OpenSearch does not keep: use an embedded index"
            )
        matrix = matrix.copy()
        matrix.data[low] = 0
        matrix.eliminate_zeros()
    if record.vectors == "sparse_vector" and matrix.nnz and matrix.indices.max() >= SPARSE_VECTOR_TOKENS:
        raise InputError(
            f"sparse_vector takes tokens below {SPARSE_VECTOR_TOKENS:,}, not {matrix.indices.max():,}: "
            "use rank_features"
        )
    return matrix


def check_ids(ids: Sequence[Id]) -> None:
    """Refuse what the server takes for no id."""
    for id in ids:
        if not isinstance(id, str):
            continue
        try:
            size = len(id.encode())
        except UnicodeEncodeError:
            raise InputError(f"id {id!a:.60} holds a lone surrogate, which is no character") from None
        if not 0 < size <= _LONGEST_ID:
            raise InputError(f"id {id!r:.40} has {size} bytes; OpenSearch takes 1 to {_LONGEST_ID}")


def check_texts(texts: Sequence[str | None]) -> None:
    """Refuse what is no text for a server."""
    for place, text in enumerate(texts):
        try:
            (text or "").encode()
        except UnicodeEncodeError:
            raise InputError(
                f"text {place} holds a lone surrogate, which is no character: mend it, as by "
                "text.encode('utf-8', 'replace').decode()"
            ) from None


def as_fields(fields: Any, count: int) -> list[Mapping[str, Any]]:
    """What documents can be filtered by, checked.

    Raises:
        InputError: It is no list of ``count`` dictionaries of strings.
    """
    rows = list(fields)
    if len(rows) != count:
        raise InputError(f"{count} ids were given for {len(rows)} dictionaries of fields")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"fields {number} is no dictionary of fields and values")
        for name, value in row.items():
            check_field(name)
            many = value if isinstance(value, list | tuple) else [value]
            if not all(isinstance(one, str) for one in many):
                raise InputError(f"fields {number}: the value of {name!r} must be a string or a list of them")
    return rows


def as_words(words: Sequence[str]) -> str:
    """Words as the field of words and a query for it have them."""
    return " ".join(word[:_LONGEST_WORD] for word in words)


class Names:
    """What features are called: by their tokens' numbers, or by the tokens.

    Args:
        tokens: Each token's name, shape ``(vocabulary,)``; None for numbers.

    Raises:
        InputError: Two tokens have one name, or one is empty.
    """

    def __init__(self, tokens: Sequence[str] | None = None) -> None:
        self.tokens = None if tokens is None else list(tokens)
        if self.tokens is not None:
            if not all(isinstance(token, str) and token for token in self.tokens):
                raise InputError("tokens must be strings of at least one character")
            if len(set(self.tokens)) < len(self.tokens):
                raise InputError("tokens must be distinct: two have one name")
        self.digest = None
        if self.tokens is not None:
            self.digest = sha256(json.dumps(self.tokens).encode()).hexdigest()[:16]
        self._keys: list[str] = []

    def of(self, numbers: Sequence[int]) -> list[str]:
        """The names of tokens."""
        return list(map(str, numbers)) if self.tokens is None else [self.tokens[one] for one in numbers]

    def number(self, name: str) -> int:
        """The token of a name."""
        return int(name) if self.tokens is None else self.tokens.index(name)

    def keys(self, size: int) -> list[str]:
        """Each name as a key in JSON, with its colon."""
        if len(self._keys) < size:
            self._keys = [f"{json.dumps(name)}:" for name in self.of(range(size))]
        return self._keys


def bodies(
    ids: Sequence[Id],
    matrix: sp.csr_matrix,
    names: Names,
    *,
    texts: Sequence[str | None] | None = None,
    words: Sequence[Sequence[str]] | None = None,
    fields: Sequence[Mapping[str, Any]] | None = None,
) -> Iterator[bytes]:
    """Each document as JSON, in UTF-8.

    Args:
        ids: Shape ``(documents,)``.
        matrix: ``(documents, vocabulary)``, as `check_vectors` gave it.
        names: Of the features.
        texts: To keep.
        words: Of each text, analyzed; a text without words has none.
        fields: To filter by.
    """
    import pyarrow as pa

    # The shortest decimals that give each float32 back; as Python's they would be doubles of 17 digits.
    numbers = pa.array(matrix.data, pa.float32()).cast(pa.string()).to_pylist()
    keys = names.keys(matrix.shape[1])
    tokens = matrix.indices.tolist()
    for row, (start, stop) in enumerate(pairwise(matrix.indptr.tolist())):
        rest: dict[str, Any] = {ID: str(ids[row]), ENTRIES: stop - start}
        if texts is not None and texts[row] is not None:
            rest[TEXT] = texts[row]
        if words is not None and words[row]:
            rest[WORDS] = as_words(words[row])
        if fields is not None and fields[row]:
            rest[FIELDS] = dict(fields[row])
        body = json.dumps(rest)
        if stop > start:  # an empty object would spoil a sparse_vector field for all that come after it
            entries = map(str.__add__, map(keys.__getitem__, tokens[start:stop]), numbers[start:stop])
            body = f'{body[:-1]},"{VECTORS}":{{{",".join(entries)}}}}}'
        yield body.encode()
