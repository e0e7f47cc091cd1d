"""What a search is asked, checked: vectors, texts and their weight, and which documents may be found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from st_l0.errors import InputError
from st_l0.index.embedded.arguments import as_ids
from st_l0.index.embedded.bm25 import Weighed, WordSettings
from st_l0.index.embedded.snapshot import Snapshot
from st_l0.index.protocol import Ids, as_weight
from st_l0.utils.inputs import as_texts


def as_queries(
    snapshot: Snapshot,
    vectors: sp.csr_matrix | None,
    texts: Sequence[str] | None,
    bm25: float | Literal["auto"],
) -> tuple[sp.csr_matrix, list[Weighed] | None]:
    """The vectors of the queries, and their words with weights; None if words do not count.

    Raises:
        InputError: ``bm25`` is no weight; the index holds no words; texts are missing, are none or are
            another number than the vectors; or both are missing.
    """
    weight = as_weight(bm25, None if snapshot.words is None else snapshot.words.weight)
    if texts is not None:
        words_of(snapshot)
        texts = as_texts(texts, "query")
        if vectors is not None and len(texts) != vectors.shape[0]:
            raise InputError(f"{len(texts)} texts were given for {vectors.shape[0]} query vectors")
    if not weight:
        if vectors is None:
            raise InputError("None is no vector; give a matrix of numbers, or texts and bm25 for words alone")
        return vectors, None
    settings = words_of(snapshot)
    if texts is None:
        raise InputError("bm25 counts the words of the queries: give their texts, too")
    if vectors is None:
        vectors = sp.csr_matrix((len(texts), snapshot.vocabulary_size or 1), dtype=np.float32)
    return vectors, [snapshot.statistics.weigh(words, weight) for words in settings.split(texts)]


def words_of(snapshot: Snapshot) -> WordSettings:
    """What its words were made with; InputError if it holds none."""
    if snapshot.words is None:
        raise InputError("the index holds no words: build it with bm25='english' or another language")
    return snapshot.words


def visible(
    snapshot: Snapshot, ids: Ids | None, mask: NDArray[np.bool_] | None
) -> NDArray[np.float32] | None:
    """1 for positions that may be returned and 0 for others; None if all may."""
    if ids is None and mask is None:
        return snapshot.visible
    allowed = snapshot.kept
    if ids is not None:
        values = as_ids(ids)
        if values and snapshot.id_kind not in (None, "str" if isinstance(values[0], str) else "int"):
            raise InputError(f"the index has {snapshot.id_kind} ids, but {values[0]!r} is not one")
        allowed = np.zeros(len(snapshot.kept), dtype=bool)
        allowed[list(snapshot.locate(values).values())] = True
    if mask is not None:
        mask = np.asarray(mask)
        if mask.dtype != np.bool_ or mask.shape != (len(snapshot),):
            raise InputError(
                f"mask must be {len(snapshot)} booleans, one a document in the order of ids(), "
                f"not {mask.dtype} of shape {mask.shape}"
            )
        allowed = allowed.copy()
        allowed[np.flatnonzero(snapshot.kept)[~mask]] = False
    return allowed.astype(np.float32)
