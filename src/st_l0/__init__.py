"""Inference-free sparse retrieval for sentence-transformers."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import open_index

__all__ = ["QueryEncoder", "SparseEncoder", "open_index"]

_HOMES = {
    "QueryEncoder": "st_l0.encoder.queries",
    "SparseEncoder": "st_l0.encoder.sparse_encoder",
    "open_index": "st_l0.index",
}


def __getattr__(name: str) -> Any:
    # On first use, so that `st-l0 --help` and the index do not wait for torch.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
