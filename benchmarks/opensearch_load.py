"""Loading an OpenSearch index: encoded parts on the disk, against ready-made bodies in memory.

Claim: at least 0.9 times the rate of opensearch-py's ``parallel_bulk`` of the same documents, ready-made as
the dictionaries that it takes. Ours reads and checks the parts, asks which documents are there, makes the
bodies of vectors, sends them, and refreshes at the end. Shown beside it: ``parallel_bulk`` of bodies that are
strings already, which costs the client next to nothing.

    python benchmarks/opensearch_load.py [--threads 1]

The server is started on loopback (``tests/opensearch_server.py``), with one shard and no replica; client and
server share the machine. 100 tokens and 60 words a document. Both sides have four requests under way, of
1,000 documents each, and no refresh meanwhile.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from common import medians, parse_threads, report
from opensearchpy import OpenSearch, helpers

from st_l0.data import Document
from st_l0.index import open_index
from st_l0.indexing.index import index_encoded
from st_l0.indexing.shards import RECORD, Shard, write_shard
from st_l0.utils.records import shard_path, write_record

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from opensearch_server import running

DOCUMENTS = 20_480
PART = 2_048
VOCABULARY = 30_522
TOKENS = 100
REPEATS = 5


class Given:
    """The model that encoded the parts, as far as it is asked: it is the one."""

    def has_fingerprint(self, fingerprint: str) -> bool:
        """Whether it made vectors of this fingerprint."""
        return fingerprint == "given"


def write_parts(folder: Path) -> None:
    """Encoded documents, as ``st-l0 encode`` writes them, with tokens as rare as words are."""
    random = np.random.default_rng(0)
    probabilities = 1 / (np.arange(VOCABULARY) + 20.0)
    probabilities /= probabilities.sum()
    for number, start in enumerate(range(0, DOCUMENTS, PART)):
        rows = [np.unique(random.choice(VOCABULARY, TOKENS, p=probabilities)) for _ in range(PART)]
        indices = np.concatenate(rows)
        indptr = np.cumsum([0, *map(len, rows)])
        weights = random.uniform(0.01, 3, len(indices)).astype(np.float32)
        texts = [" ".join(f"w{token}" for token in row[:60]) for row in rows]
        documents = [Document(f"d{start + row}", text) for row, text in enumerate(texts)]
        matrix = sp.csr_matrix((weights, indices, indptr), shape=(PART, VOCABULARY))
        write_shard(shard_path(folder, number, "parquet"), Shard(documents, matrix))
    record = {
        "model": "given", "fingerprint": "given", "vocabulary_size": VOCABULARY, "part_size": PART,
        "documents": DOCUMENTS,
    }  # fmt: skip
    write_record(folder / RECORD, record)


def main() -> None:
    """Measure both ways in turn, each time into a new index."""
    threads = parse_threads(__doc__)
    with tempfile.TemporaryDirectory() as temporary, running(plugins=False) as cluster:
        folder = Path(temporary)
        write_parts(folder)
        client = OpenSearch(cluster.url, timeout=120, pool_maxsize=16)
        address = cluster.url.replace("http://", "opensearch+http://")

        def fresh() -> Any:
            client.indices.delete(index="load-*")
            return open_index(f"{address}/load?replicas=0", vocabulary_size=VOCABULARY)

        def ours() -> None:
            assert index_encoded(Given(), folder, fresh(), progress=False) == DOCUMENTS  # type: ignore[arg-type]

        ours()
        query = {"query": {"match_all": {}}, "_source": True}
        ready = [
            ({"index": {"_index": "load-000001", "_id": hit["_id"]}}, hit["_source"])
            for hit in helpers.scan(client, query, index="load", size=1000)
        ]
        strings = [(action, client.transport.serializer.dumps(body)) for action, body in ready]

        def raw(bodies: Any) -> None:
            fresh()
            client.indices.put_settings(index="load", body={"index": {"refresh_interval": "-1"}})
            options: Any = {
                "thread_count": 4,
                "chunk_size": 1000,
                "expand_action_callback": lambda pair: pair,
            }
            assert all(done for done, _ in helpers.parallel_bulk(client, iter(bodies), **options))
            client.indices.refresh(index="load")
            assert client.count(index="load")["count"] == DOCUMENTS

        found = medians({"ours": ours, "raw": lambda: raw(ready), "strings": lambda: raw(strings)}, REPEATS)
    for side, seconds in found.items():
        print(f"{side}: {DOCUMENTS / seconds:,.0f} documents/s")
    claim = "a document of encoded parts into OpenSearch, against parallel_bulk of ready-made bodies"
    cost, raw_cost = found["ours"] / DOCUMENTS * 1e6, found["raw"] / DOCUMENTS * 1e6
    report(claim, ours=cost, stock=raw_cost, unit="us", threads=threads, goal=0.9)


if __name__ == "__main__":
    main()
