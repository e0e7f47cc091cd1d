"""From a corpus to an index, in steps that survive an interruption."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from st_l0.errors import InputError
from st_l0.index import EmbeddedIndex
from st_l0.index.embedded.storage import FILLING
from st_l0.index.protocol import LoadingIndex
from st_l0.indexing.identity import LIMIT, check_encoded, check_limit, smaller_limit
from st_l0.indexing.shards import RECORD, encoding_record, read_shards
from st_l0.utils.batches import batched
from st_l0.utils.inputs import as_texts
from st_l0.utils.locks import hold
from st_l0.utils.paths import input_path
from st_l0.utils.progress import show_progress
from st_l0.utils.sparse import keep_largest, silence_empty

if TYPE_CHECKING:
    from st_l0.data import Document
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index
    from st_l0.index.protocol import Add


@contextmanager
def _adding(index: Index, refused: str | Path | None) -> Iterator[Add]:
    """What adds documents: an index's own way to load many, or its `Index.add`.

    Of several processes that fill one folder the others wait, and then see what this one has added.
    """
    if isinstance(index, LoadingIndex):
        with index.loading(refused) as add:
            yield add
        return
    if refused is not None:
        raise InputError(f"{refused}: only a server refuses single documents; leave refused out")
    if not isinstance(index, EmbeddedIndex) or index.path is None:
        yield index.add
        return
    with hold(index.path / FILLING, "is filling the index", seconds=math.inf):
        index.refresh()
        yield index.add


def index_corpus(
    model: SparseEncoder,
    documents: Iterable[Document],
    index: Index,
    *,
    batch_size: int = 32,
    chunk_size: int = 2048,
    max_active_dims: int | None = None,
    refused: str | Path | None = None,
    progress: bool = True,
) -> int:
    """Encode documents and add them, with their texts, to an index.

    In the embedded engine each chunk is added in one atomic step; a server takes the last ones while the next
    ones are encoded. Documents whose ids the index has are not encoded again: after
    an interruption the same call goes on where the last one stopped. A document whose text has changed is
    therefore not updated; use ``index.update`` for that. Of several processes that index into one folder one
    does so at a time; the others wait, and then find nothing to add.

    Args:
        model: Encodes the documents.
        documents: The corpus; a stream is consumed as it comes.
        index: Where they go.
        batch_size: Documents encoded at once.
        chunk_size: Documents added at once. Texts of like length are batched together within a chunk, so
            small chunks are slower.
        max_active_dims: Largest weights that a document keeps, equal ones by lower token id; ``None`` keeps
            all. Fewer make a smaller index and quicker searches, at some cost in quality. The index has to
            say the same of itself: make it with ``metadata=index_metadata(model, name, max_active_dims=…)``
            of `st_l0.indexing.identity`.
        refused: File for the documents that a server refuses, see `st_l0.index.protocol.LoadingIndex`.
        progress: Whether to show progress, see `st_l0.utils.progress`.

    Returns:
        Number of documents that were added.

    Raises:
        InputError: The corpus cannot be read, the index says another ``max_active_dims`` of itself, or
            refuses a document. What was added before stays.

    Example:
        >>> from st_l0 import SparseEncoder
        >>> from st_l0.data import Document
        >>> from st_l0.index import EmbeddedIndex
        >>> model = SparseEncoder.from_pretrained("models/st-l0-mini", device="cpu")
        >>> corpus = [Document("a", "Rain falls from clouds."), Document("b", "An index lists words.")]
        >>> index_corpus(model, corpus, EmbeddedIndex(), progress=False)
        2
    """
    if min(batch_size, chunk_size) < 1:
        raise InputError(f"batch_size ({batch_size}) and chunk_size ({chunk_size}) must be at least 1")
    check_limit(index, max_active_dims)
    added = 0
    total = len(documents) if isinstance(documents, Sized) else None
    with (
        show_progress("indexing", total, unit="documents", shown=progress) as bar,
        _adding(index, refused) as add,
    ):
        for chunk in batched(documents, chunk_size):
            missing = set(index.missing([document.id for document in chunk]))
            new = [document for document in chunk if document.id in missing]
            if new:
                texts = as_texts([document.text for document in new], "document", (one.id for one in new))
                vectors = model.encode_document(
                    texts, batch_size=batch_size, convert_to_scipy=True, show_progress_bar=progress
                )
                vectors = keep_largest(silence_empty(vectors, texts), max_active_dims)
                add([document.id for document in new], vectors, texts)
                added += len(new)
            bar.update(len(chunk))
    return added


def encoded_limit(model: SparseEncoder, folder: str | Path, max_active_dims: int | None = None) -> int | None:
    """Weights of a document in an index of encoded documents, where fewer than the model leaves.

    Args:
        model: The encoder that made them.
        folder: What `st_l0.indexing.encode.encode_corpus` wrote.
        max_active_dims: What is wished; ``None`` takes the documents as they are.

    Raises:
        InputError: The documents were encoded to fewer weights than that; or there is no record of them.
    """
    encoded = encoding_record(folder).get(LIMIT)
    if encoded is not None and max_active_dims is not None and max_active_dims > encoded:
        raise InputError(
            f"{input_path(folder) / RECORD}: encoded with max_active_dims {encoded}; give no more"
        )
    limit = smaller_limit(encoded, max_active_dims)
    return None if limit == model.max_active_dims else limit


def index_encoded(
    model: SparseEncoder,
    folder: str | Path,
    index: Index,
    *,
    max_active_dims: int | None = None,
    refused: str | Path | None = None,
    progress: bool = True,
) -> int:
    """Add documents that were encoded before, with their texts, to an index.

    In the embedded engine each part is added in one atomic step; a server takes one while the next one is
    read. Documents whose ids the index has are left as they are: after
    an interruption the same call goes on where the last one stopped.

    Args:
        model: The encoder that made them, which queries will go through; it encodes nothing here.
        folder: What `st_l0.indexing.encode.encode_corpus` wrote.
        index: Where they go.
        max_active_dims: As in `index_corpus`; ``None`` keeps what the documents were encoded to, which the
            index has to say of itself too (`encoded_limit`).
        refused: As for `index_corpus`.
        progress: Whether to show progress, see `st_l0.utils.progress`.

    Returns:
        Number of documents that were added.

    Raises:
        InputError: The documents were encoded by a model of other weights, not to the end, or a part is
            damaged; the index says another ``max_active_dims`` of itself, or refuses a document. What was
            added before stays.
    """
    record = check_encoded(model, folder)
    limit = encoded_limit(model, folder, max_active_dims)
    check_limit(index, limit)
    added = 0
    total = record["documents"]
    with (
        show_progress("indexing", total, unit="documents", shown=progress) as bar,
        _adding(index, refused) as add,
    ):
        for documents, vectors in read_shards(folder):
            missing = set(index.missing([one.id for one in documents]))
            new = [row for row, one in enumerate(documents) if one.id in missing]
            if new:
                chosen = [documents[row] for row in new]
                texts = [one.text for one in chosen]
                add([one.id for one in chosen], keep_largest(vectors[new], limit), texts)
                added += len(new)
            bar.update(len(documents))
    return added
