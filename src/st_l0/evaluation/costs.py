"""What matching costs, counted while vectors go by, so that no collection is held for it."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from st_l0.errors import InputError
from st_l0.utils.sparse import active_dims


class Activity:
    """How many dims of the vectors seen so far are active, and how often each."""

    def __init__(self) -> None:
        self._dims: list[np.ndarray] = []
        self._counts = np.zeros(0, dtype=np.int64)

    def add(self, vectors: sp.csr_matrix) -> None:
        """Count vectors, CSR without duplicates of shape ``(texts, vocabulary)``."""
        counts = np.bincount(vectors.indices[vectors.data != 0], minlength=vectors.shape[1])
        if len(self._counts) not in (0, len(counts)):
            raise InputError(
                f"vectors of length {len(self._counts)} and {len(counts)}; encode with one model"
            )
        self._counts = counts if not len(self._counts) else self._counts + counts
        self._dims.append(active_dims(vectors))

    @property
    def dims(self) -> np.ndarray:
        """Number of non-zero weights of each vector, shape ``(texts,)``."""
        return np.concatenate(self._dims) if self._dims else np.zeros(0)

    @property
    def shares(self) -> np.ndarray:
        """Part of the vectors in which each token is active, shape ``(vocabulary,)``."""
        return np.asarray(self._counts / max(len(self.dims), 1))


def matching_costs(queries: Activity, documents: Activity) -> dict[str, float]:
    """What `evaluate` reports too: ``flops``, ``query_active_dims``, ``document_active_dims`` and ``…_p95``.

    Args:
        queries: At least one.
        documents: At least one, encoded by the same model.
    """
    return {
        "query_active_dims": float(queries.dims.mean()),
        "document_active_dims": float(documents.dims.mean()),
        "document_active_dims_p95": float(np.percentile(documents.dims, 95)),
        "flops": float(queries.shares @ documents.shares),
    }
