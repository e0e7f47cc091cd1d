"""Where documents are kept and found again: one protocol, an embedded exact engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_l0.errors import InputError
from st_l0.index.embedded.index import EmbeddedIndex
from st_l0.index.protocol import Hit, Hits, Index

__all__ = ["EmbeddedIndex", "Hit", "Hits", "Index", "open_index"]


def open_index(
    target: str | Path,
    *,
    vocabulary_size: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    create: bool = True,
) -> Index:
    """Open an index, or create it.

    Args:
        target: A folder, for the embedded engine.
        vocabulary_size: Length of the vectors; if None, an existing index knows it and a new one learns it
            from the first documents.
        metadata: A small JSON object, such as the model's name, stored with a new index; an index that
            exists already keeps its own.
        create: Create the index if there is none.

    Raises:
        InputError: ``target`` is something else than an index, is damaged, has vectors of another length,
            does not exist while ``create`` is off, or names an engine that is not supported.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> with TemporaryDirectory() as folder:
        ...     index = open_index(f"{folder}/index")
        ...     index.add(["a", "b"], np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
        ...     index.search(np.array([[1.0, 0.0, 1.0]]))[0][0].id
        'a'
    """
    if target is None:
        raise InputError("target is None; give a folder, or EmbeddedIndex() for an index in memory")
    if str(target).startswith("opensearch:"):
        raise InputError(f"{target}: OpenSearch is not supported by this version yet; give a folder instead")
    if "://" in str(target):
        raise InputError(f"{target}: no engine of that name; give a folder instead")
    return EmbeddedIndex(target, vocabulary_size=vocabulary_size, metadata=metadata, create=create)
