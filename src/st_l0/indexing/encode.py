"""A corpus into encoded shards, on one process or on many, in steps that survive an interruption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import scipy.sparse as sp

from st_l0.encoder.precision import encoder_precision
from st_l0.errors import InputError
from st_l0.indexing.identity import OTHER, place, smaller_limit
from st_l0.indexing.shards import RECORD, RECORD_KEYS, SUFFIX, Shard, read_shard, write_shard
from st_l0.utils.inputs import as_texts, text_batches
from st_l0.utils.paths import local_path
from st_l0.utils.records import PARTS, begin_record, check_begun, check_record
from st_l0.utils.resumable import hold_output, write_shards
from st_l0.utils.sparse import keep_largest, silence_empty

if TYPE_CHECKING:
    from st_l0.data import Document
    from st_l0.encoder.sparse_encoder import SparseEncoder


def encode_stream(
    model: SparseEncoder,
    texts: Iterable[str],
    *,
    batch_size: int = 32,
    window: int = 2048,
    max_active_dims: int | None = None,
) -> Iterator[sp.csr_matrix]:
    """Encode documents that do not fit in memory, or whose vectors do not; an empty text has an empty vector.

    Args:
        model: The encoder.
        texts: The documents; a window of them is read when its vectors are asked for.
        batch_size: As in `st_l0.SparseEncoder.encode`.
        window: Documents of a matrix. Those of like length share a batch within a window, so small windows
            are slower.
        max_active_dims: Largest weights that a document keeps, at most as many as the model's own setting
            leaves; ``None`` keeps all of those.

    Yields:
        ``(window, vocabulary)``, float32, in the order of ``texts``; the last one may have fewer rows.

    Raises:
        InputError: ``window`` or ``max_active_dims`` is below 1, one of ``texts`` is no string, or a weight
            is not finite.
    """
    if window < 1:
        raise InputError(f"window must be at least 1, not {window}")
    for some in text_batches(texts, window):
        vectors = model.encode_document(some, batch_size=batch_size, convert_to_scipy=True)
        yield keep_largest(silence_empty(vectors, some), max_active_dims)


def encode_corpus(
    model: SparseEncoder,
    documents: Iterable[Document],
    output: str | Path,
    *,
    name: str | Path,
    dtype: str = "float32",
    batch_size: int = 32,
    shard_size: int = 2048,
    max_active_dims: int | None = None,
    progress: bool = True,
) -> int:
    """Encode documents into a folder that `st_l0.indexing.shards.read_shards` reads.

    The folder holds a shard for each ``shard_size`` documents in order, with ids, texts and vectors, and
    ``encoding.json``, which says how they were made; once all shards are there, its ``documents`` says how
    many they hold (null until then), and its ``parts`` has the SHA-256 of each.

    A run that was stopped and is started again keeps the shards that are there. Of several processes (a
    process group, as under torchrun) the one of rank r encodes the shards r, r + world size, …, so each has
    to get the same documents; each returns when its own shards are written. The bytes are the same however
    often the run was stopped and however many processes there are, on machines of one kind with the same
    ``batch_size`` and number of threads.

    Args:
        model: Encodes the documents.
        documents: The corpus; a stream is consumed as it comes, with one shard in memory.
        output: Folder, new, empty or of the same run.
        name: Folder or Hub id of the model, for the record.
        dtype: See `st_l0.encoder.precision.encoder_precision`. The vectors are always float32.
        batch_size: As in `st_l0.SparseEncoder.encode`.
        shard_size: Documents of a shard, which is also what a stopped run loses at most.
        max_active_dims: As in `encode_stream`; it stands in the record.
        progress: Whether to show progress, see `st_l0.utils.progress`.

    Returns:
        Number of documents of the corpus.

    Raises:
        InputError: There are no documents, or the folder holds something else: of another model or corpus, or
            with other settings; a shard has changed, or another run is writing there.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from st_l0 import SparseEncoder
        >>> from st_l0.data import Document
        >>> name = "models/st-l0-mini"
        >>> model = SparseEncoder.from_pretrained(name, device="cpu")
        >>> with TemporaryDirectory() as folder:
        ...     encode_corpus(model, [Document("a", "Rain falls.")], folder, name=name, progress=False)
        1
    """
    output = check_output(output)
    if min(batch_size, shard_size) < 1:
        raise InputError(f"batch_size ({batch_size}) and shard_size ({shard_size}) must be at least 1")
    if max_active_dims is not None and max_active_dims < 1:
        raise InputError(f"max_active_dims is {max_active_dims}; give at least 1, or none to keep all")

    with encoder_precision(model, dtype), hold_output(output):
        limit = smaller_limit(max_active_dims, model.max_active_dims)
        record = _begin(output, _record(model, name, dtype, shard_size, limit), model)

        def finish(shard: Path, chunk: list[Document]) -> None:
            _finish(shard, chunk, model, batch_size, limit, record["vocabulary_size"], progress)

        return write_shards(
            output / RECORD,
            record,
            SUFFIX,
            documents,
            shard_size,
            finish,
            unit="document",
            description="encoding",
            progress=progress,
        )


def check_output(folder: str | Path) -> Path:
    """Refuse a folder that `encode_corpus` would refuse, before a model is loaded.

    Returns:
        The folder.

    Raises:
        InputError: It holds something else than an encoded corpus, or nothing can be written there.
    """
    folder = local_path(folder)
    check_begun(folder / RECORD)
    return folder


def _record(
    model: SparseEncoder, name: str | Path, dtype: str, shard_size: int, limit: int | None
) -> dict[str, Any]:
    return {
        "model": place(name),
        "fingerprint": model.fingerprint(),
        "vocabulary_size": model.get_embedding_dimension(),
        "max_seq_length": model.max_seq_length,
        "max_active_dims": limit,
        "dtype": dtype,
        "part_size": shard_size,
        "documents": None,
    }


def _begin(output: Path, record: dict[str, Any], model: SparseEncoder) -> dict[str, Any]:
    """Begin a folder, or make sure that it was begun by the same run."""
    path = output / RECORD
    found = begin_record(path, record, RECORD_KEYS)
    if not model.has_fingerprint(found["fingerprint"]):
        raise InputError(
            f"{path}: begun with a model of {OTHER} (then at {found['model']}); "
            "use that one, or give a new folder"
        )
    check_record(path, found, record, record.keys() - {"model", "fingerprint", "documents", PARTS})
    return found


def _finish(
    path: Path,
    chunk: list[Document],
    model: SparseEncoder,
    batch_size: int,
    limit: int | None,
    size: int,
    progress: bool,
) -> None:
    """Write a shard, or make sure that the one that is there holds these documents."""
    ids, texts = [document.id for document in chunk], [document.text for document in chunk]
    if path.exists():
        found = read_shard(path, size)
        if (found.ids, found.texts) != (ids, texts):  # an earlier version's lacks the titles
            raise InputError(f"{path}: not the documents that the corpus has there; give a new folder")
        return
    vectors = model.encode_document(
        as_texts(texts, "document", ids),
        batch_size=batch_size,
        convert_to_scipy=True,
        show_progress_bar=progress,
    )
    write_shard(path, Shard(chunk, keep_largest(silence_empty(vectors, texts), limit)))
