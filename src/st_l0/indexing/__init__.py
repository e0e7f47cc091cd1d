"""From a corpus to vectors, and from vectors to an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.utils.lazy import on_first_use

if TYPE_CHECKING:
    from st_l0.indexing.encode import encode_corpus, encode_stream
    from st_l0.indexing.index import index_corpus, index_encoded
    from st_l0.indexing.shards import read_shards
    from st_l0.indexing.vectors import write_vectors

__all__ = ["encode_corpus", "encode_stream", "index_corpus", "index_encoded", "read_shards", "write_vectors"]

# So that a search, which looks up an index's identity here, does not wait for torch.
__getattr__ = on_first_use(
    __name__,
    {
        "encode_corpus": "encode",
        "encode_stream": "encode",
        "index_corpus": "index",
        "index_encoded": "index",
        "read_shards": "shards",
        "write_vectors": "vectors",
    },
)
