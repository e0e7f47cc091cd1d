"""Inference-free sparse retrieval for sentence-transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.utils.lazy import on_first_use

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import open_index

__all__ = ["QueryEncoder", "SparseEncoder", "open_index"]

# So that neither `st-l0 --help` nor a search waits for torch.
__getattr__ = on_first_use(
    __name__,
    {"QueryEncoder": "encoder.queries", "SparseEncoder": "encoder.sparse_encoder", "open_index": "index"},
)
