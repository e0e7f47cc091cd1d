"""Encoded documents in files: a folder of parquet shards and a record that says how they were made.

``part-000000.parquet`` and so on hold a row a document, in the order of the corpus, with the columns ``id``,
``text``, ``indices`` (the tokens that weigh, rising) and ``weights`` (float32); ``title`` where a document
has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import scipy.sparse as sp

from st_l0.data.records import Document
from st_l0.errors import InputError
from st_l0.utils.files import replace_file
from st_l0.utils.paths import input_path
from st_l0.utils.records import PARTS, read_part, read_record, shard_path

RECORD = "encoding.json"
RECORD_KEYS = frozenset({"model", "fingerprint", "vocabulary_size", "part_size", "documents"})
SUFFIX = "parquet"
_AGAIN = "remove it and start st-l0 encode again"


class Shard(NamedTuple):
    """Some documents of a corpus, and vectors ``(documents, vocabulary)`` of them, float32 CSR."""

    documents: Sequence[Document]
    vectors: sp.csr_matrix

    @property
    def ids(self) -> list[str]:
        """The documents' ids."""
        return [one.id for one in self.documents]

    @property
    def texts(self) -> list[str]:
        """The documents' texts."""
        return [one.text for one in self.documents]


def is_encoded(folder: str | Path) -> bool:
    """Whether the folder holds an encoded corpus, or the beginning of one."""
    return (input_path(folder) / RECORD).exists()


def read_shards(folder: str | Path) -> Iterator[Shard]:
    """Stream an encoded corpus, shard by shard, in the order of the corpus.

    Args:
        folder: What `st_l0.indexing.encode.encode_corpus` wrote, or the address of a copy for fsspec.

    Raises:
        InputError: the corpus is not encoded to its end, or a shard is missing, damaged, not the one that was
            written there, or one too many.
    """
    folder = input_path(folder)
    record = encoding_record(folder)
    documents, size = record["documents"], record["part_size"]
    if documents is None:
        raise InputError(
            f"{folder}: not encoded to its end; start st-l0 encode again with the same arguments"
        )
    starts = range(0, documents, size)
    known = {shard_path(folder, number, SUFFIX) for number in range(len(starts))}
    stranger = next((path for path in sorted(folder.glob(f"part-*.{SUFFIX}")) if path not in known), None)
    if stranger is not None:
        raise InputError(f"{stranger}: is no part of these {documents} documents; {_AGAIN}")
    for number, start in enumerate(starts):
        path = shard_path(folder, number, SUFFIX)
        content = BytesIO(read_part(path, number, record, _AGAIN))
        shard, expected = read_shard(path, record["vocabulary_size"], content), min(size, documents - start)
        if len(shard.documents) != expected:
            raise InputError(f"{path}: holds {len(shard.documents)} documents, not {expected}; {_AGAIN}")
        yield shard


def encoding_record(folder: str | Path) -> dict[str, Any]:
    """What the folder says of itself: its model, settings and number of documents.

    ``documents`` is None until the last shard is written. Its ``parts`` are the digests of the shards, which
    a folder of an earlier version lacks.

    Raises:
        InputError: there is no record, or it is none of an encoded corpus.
    """
    path = input_path(folder) / RECORD
    if not path.exists():
        raise InputError(f"{folder}: holds no {RECORD}; give a folder written by st-l0 encode")
    record = read_record(path, RECORD_KEYS)
    for key in ("vocabulary_size", "part_size", "documents"):
        value = record[key]
        if not (type(value) is int and value > 0) and not (key == "documents" and value is None):
            raise InputError(f"{path}: {key} is {value!r:.40}, not a number above 0; give a new folder")
    digests = record.get(PARTS)
    if digests is not None and record["documents"] is not None:
        shards = -(-record["documents"] // record["part_size"])
        if not isinstance(digests, list) or len(digests) != shards:
            raise InputError(f"{path}: its {PARTS} are not those of {shards} shards; give a new folder")
    return record


def write_shard(path: Path, shard: Shard) -> None:
    """Write a shard atomically; equal shards give equal bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets = pa.array(shard.vectors.indptr.astype(np.int32))
    values = (shard.vectors.indices.astype(np.int32), shard.vectors.data.astype(np.float32, copy=False))
    titles = [one.title for one in shard.documents]
    columns = [pa.array(shard.ids, pa.string()), pa.array(shard.texts, pa.string())]
    columns += [pa.ListArray.from_arrays(offsets, pa.array(some)) for some in values]
    titled = any(titles)
    columns += [pa.array(titles, pa.string())] if titled else []
    table = pa.Table.from_arrays(columns, schema=_schema(titled))
    with replace_file(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )


def _schema(titled: bool) -> Any:
    import pyarrow as pa

    lists = {"indices": pa.list_(pa.int32()), "weights": pa.list_(pa.float32())}
    titles = {"title": pa.string()} if titled else {}
    return pa.schema({"id": pa.string(), "text": pa.string(), **lists, **titles})


def read_shard(path: Path, vocabulary_size: int, content: BinaryIO | None = None) -> Shard:
    """Read a shard, from its path or from what it holds.

    Raises:
        InputError: it is missing or damaged, or holds something else.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path if content is None else content, page_checksum_verification=True) as file:
            table = file.read()
        titled = "title" in table.column_names
        if not table.schema.remove_metadata().equals(_schema(titled)):
            raise ValueError("other columns than id, text, indices, weights and title")
        names = ["id", "text", "title"] if titled else ["id", "text"]
        strings = (table[name].to_pylist() for name in names)
        documents = [Document(*row) for row in zip(*strings, strict=True)]
        indices, weights = (pa.concat_arrays(table[name].chunks) for name in ("indices", "weights"))
        indptr, columns = indices.offsets.to_numpy(), indices.flatten().to_numpy()
        data = weights.flatten().to_numpy().astype(np.float32, copy=False)
        if not np.array_equal(indptr, weights.offsets.to_numpy()):
            raise ValueError("indices and weights do not match")
        if len(columns) and not 0 <= columns.min() <= columns.max() < vocabulary_size:
            raise ValueError(f"an index is outside the vocabulary of {vocabulary_size}")
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}); {_AGAIN}") from None
    shape = len(documents), vocabulary_size
    return Shard(documents, sp.csr_matrix((data, columns, indptr), shape=shape))
