"""Searching an OpenSearch index: batches of queries, against sentence-transformers' own helper.

Claim: at least 3 times the queries a second of ``semantic_search_opensearch``, which asks one by one and
reads each document it finds. Both search ``rank_features`` of the same server, and find the same scores.

    python benchmarks/opensearch_search.py [--threads 1]

The server is started on loopback (``tests/opensearch_server.py``), with one shard and no replica; client and
server share the machine. 100 tokens and 60 words a document, 10 tokens a query.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from common import medians, parse_threads, report
from opensearchpy import OpenSearch
from sentence_transformers.sparse_encoder.search_engines import semantic_search_opensearch

from st_l0.index.opensearch import OpenSearchIndex

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from opensearch_server import running

DOCUMENTS = 20_480
QUERIES = 128
VOCABULARY = 30_522
REPEATS = 3


def vectors(generator: np.random.Generator, rows: int, tokens: int) -> sp.csr_matrix:
    """Random vectors, with tokens as rare as words are."""
    rarity = 1 / np.arange(1, VOCABULARY + 1) ** 0.9
    columns = generator.choice(VOCABULARY, (rows, tokens), p=rarity / rarity.sum()).ravel()
    weights = generator.uniform(0.1, 2.5, rows * tokens).astype(np.float32)
    matrix = sp.csr_matrix((weights, (np.repeat(np.arange(rows), tokens), columns)), (rows, VOCABULARY))
    matrix.sum_duplicates()
    return matrix


def main() -> None:
    """Measure."""
    threads = parse_threads(__doc__)
    generator = np.random.default_rng(7)
    documents, queries = vectors(generator, DOCUMENTS, 100), vectors(generator, QUERIES, 10)
    texts = [" ".join(["word"] * 60)] * DOCUMENTS
    with running() as cluster:
        index = OpenSearchIndex(f"opensearch+http://127.0.0.1:{cluster.nodes[0].http}/ours?replicas=0")
        index.add(list(map(str, range(DOCUMENTS))), documents, texts)
        index.refresh()  # what is not shown yet is not copied
        # The helper's form of an index: the same documents, its names of fields.
        client = OpenSearch(cluster.url)
        properties = {
            "tokens": {"type": "rank_features"},
            "id": {"type": "keyword"},
            "text": {"type": "text"},
        }
        settings = {"number_of_replicas": 0}
        client.indices.create(
            index="stock", body={"settings": settings, "mappings": {"properties": properties}}
        )
        rename = "ctx._source = ['id': ctx._source.id, 'text': ctx._source.text, 'tokens': ctx._source.emb]"
        client.reindex(
            body={"source": {"index": index.name}, "dest": {"index": "stock"}, "script": {"source": rename}},
            refresh=True,
            request_timeout=600,
        )
        rows = [queries[row] for row in range(QUERIES)]
        decoded = [list(zip(map(str, row.indices.tolist()), row.data.tolist(), strict=True)) for row in rows]
        for k in (10, 100, 1000):

            def ours(k: int = k) -> list[list[float]]:
                return [hits.scores.tolist() for hits in index.search(queries, k)]

            def stock(k: int = k) -> list[list[float]]:
                found, _ = semantic_search_opensearch(decoded, corpus_index=(client, "stock"), top_k=k)
                return [[hit["score"] for hit in hits] for hits in found]

            np.testing.assert_allclose(np.concatenate(ours()), np.concatenate(stock()), rtol=1e-6)
            found = medians({"ours": ours, "stock": stock}, REPEATS)
            cost = {name: seconds / QUERIES * 1e3 for name, seconds in found.items()}
            report(
                f"OpenSearch, top {k} of {DOCUMENTS:,}, a query", **cost, unit="ms", threads=threads, goal=3
            )


if __name__ == "__main__":
    main()
