"""Where documents are kept and found again: one protocol, an embedded exact engine."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from st_l0.errors import InputError
from st_l0.index.embedded.index import EmbeddedIndex
from st_l0.index.embedded.storage import Folder
from st_l0.index.protocol import BM25, Hit, Hits, Index
from st_l0.utils.files import check_writable

__all__ = ["BM25", "EmbeddedIndex", "Hit", "Hits", "Index", "check_target", "open_index"]


def open_index(
    target: str | Path,
    *,
    vocabulary_size: int | None = None,
    metadata: Mapping[str, Any] | None = None,
    create: bool = True,
    bm25: str | BM25 | None = None,
) -> Index:
    """Open an index, or create it.

    Args:
        target: A folder, for the embedded engine.
        vocabulary_size: Length of the vectors; if None, an existing index knows it and a new one learns it
            from the first documents.
        metadata: A small JSON object, such as the model's name, stored with a new index; an index that
            exists already keeps its own.
        create: Create the index if there is none.
        bm25: Keep the words of the documents beside their vectors, so that a search can count them too: the
            language of stop words and stemmer ("english"), or a `BM25`. If None, a new index holds no words
            and an existing one keeps what it has.

    Raises:
        InputError: ``target`` is something else than an index, is damaged, has vectors of another length or
            words of another ``bm25``, does not exist while ``create`` is off, or names an engine that is not
            supported.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import numpy as np
        >>> with TemporaryDirectory() as folder:
        ...     index = open_index(f"{folder}/index")
        ...     index.add(["a", "b"], np.array([[1.0, 0.0, 2.0], [0.0, 3.0, 0.0]]))
        ...     index.search(np.array([[1.0, 0.0, 1.0]]))[0][0].id
        'a'
    """
    _refuse_engines(target)
    return EmbeddedIndex(target, vocabulary_size=vocabulary_size, metadata=metadata, create=create, bm25=bm25)


def check_target(target: str | Path) -> None:
    """Refuse what `open_index` could neither open nor create, or not write to; before any work is done.

    Raises:
        InputError: ``target`` is something else than an index, names an engine that is not supported, or
            nothing can be written there.
    """
    _refuse_engines(target)
    check_writable(Folder(target).path, "manifest.json")


def _refuse_engines(target: str | Path) -> None:
    if target is None:
        raise InputError("target is None; give a folder, or EmbeddedIndex() for an index in memory")
    if str(target).startswith("opensearch:"):
        raise InputError(f"{target}: OpenSearch is not supported by this version yet; give a folder instead")
    if "://" in str(target):
        raise InputError(f"{target}: no engine of that name; give a folder instead")
