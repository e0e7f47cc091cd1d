"""Where documents are kept and found again: one protocol, an embedded exact engine, and OpenSearch."""

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
        target: A folder, for the embedded engine; or ``opensearch://HOST:PORT/NAME``, see `OpenSearchIndex`
            in `st_l0.index.opensearch`.
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
        >>> with TemporaryDirectory() as folder:
        ...     index = open_index(f"{folder}/index", bm25="english")
        ...     index.add(["a", "b"], np.eye(2), ["Cats purr.", "Dogs bark."])
        ...     index.search(np.array([[1.0, 0.0]]), texts=["a dog"], bm25=3.0)[0].ids.tolist()
        ['a', 'b']
    """
    address = _server_address(target)
    if address is not None:
        from st_l0.index.opensearch import OpenSearchIndex

        return OpenSearchIndex(
            address, vocabulary_size=vocabulary_size, metadata=metadata, create=create, bm25=bm25
        )
    return EmbeddedIndex(target, vocabulary_size=vocabulary_size, metadata=metadata, create=create, bm25=bm25)


def check_target(target: str | Path) -> None:
    """Refuse what `open_index` could neither open nor create, or not write to; before any work is done.

    Raises:
        InputError: ``target`` is something else than an index, names an engine that is not supported, or
            nothing can be written there.
    """
    address = _server_address(target)
    if address is not None:
        from st_l0.index.opensearch.opening import check

        check(address)
        return
    check_writable(Folder(target).path, "manifest.json")


def _server_address(target: str | Path) -> str | None:
    """The address of an index on a server; None for a folder."""
    if target is None:
        raise InputError("target is None; give a folder, or EmbeddedIndex() for an index in memory")
    address = str(target)
    if isinstance(target, str) and address.startswith(("opensearch://", "opensearch+")):
        return address
    if address.startswith("opensearch:"):  # as a path it has lost a slash
        raise InputError("an address of OpenSearch is a str such as opensearch://localhost:9200/papers")
    if "://" in address:
        scheme, _, place = address.partition("://")
        place = place.rpartition("@")[2]  # a password is not repeated
        raise InputError(f"{scheme}://{place}: no engine of that name; give a folder, or opensearch://…")
    return None
