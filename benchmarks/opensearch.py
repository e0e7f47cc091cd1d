"""OpenSearch: what the approximate searches lose and save, and what a document and a query cost there.

    python benchmarks/opensearch.py [--encoded FOLDER --collection FOLDER --model FOLDER] [--synthetic N …]

Starts a node of its own (1 GB of memory for Java, one shard, no replica), or takes the one that
``ST_L0_OPENSEARCH_URL`` names. With ``--encoded`` a collection as ``st-l0 encode`` wrote it is searched with
its queries,

- exactly, ``rank_features``: the truth that the others are compared with;
- in two phases (OpenSearch's pipeline), with its own parameters;
- with SEISMIC (``sparse_vector``), with its own parameters and several ``heap_factor``, all of the query's
  tokens looked at, one segment.

The synthetic vectors of ``search.py`` are for costs, in several sizes. They are searched exactly and in two
phases; their tokens are independent, so that approximations lose more on them than on text.

recall@k is the part of the true k best that is found. Latency is the median of a search for one query, this
process and the network of the machine included; processor time is the node's alone, in a batch, and depends
little on what else the machine does. Bytes count the whole index after a merge into one segment,
the documents' JSON and ids included. Results go to ``results/opensearch.json``, from which ``scaling.py``
takes its constants.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import scipy.sparse as sp
from search import draw, draw_queries, token_probabilities

from st_l0 import QueryEncoder
from st_l0.data import read_collection
from st_l0.index import EmbeddedIndex, Hits
from st_l0.index.opensearch import OpenSearchIndex
from st_l0.indexing.shards import read_shards

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "opensearch.json"
SINGLE, BATCH = 100, 300  # queries one by one, and for recall and throughput
HEAP_FACTORS = (1.0, 2.0, 4.0, 10.0)


@contextmanager
def server() -> Iterator[str]:
    """``host:port`` of a node."""
    if given := os.environ.get("ST_L0_OPENSEARCH_URL"):
        yield given.partition("://")[2]
        return
    sys.path.insert(0, str(HERE.parent / "tests"))
    from opensearch_server import running

    with running() as cluster:
        yield cluster.url.partition("://")[2]


def recall(found: Sequence[Hits], truth: Sequence[Hits], k: int) -> float:
    """Mean part of the true ``k`` best that is among the ``k`` found."""
    shares = [
        len(set(hits.ids[:k].tolist()) & set(best.ids[:k].tolist())) / min(k, len(best))
        for hits, best in zip(found, truth, strict=True)
        if len(best)
    ]
    return statistics.mean(shares)


def latency(index: OpenSearchIndex, queries: sp.csr_matrix, k: int, **options: Any) -> float:
    """Median milliseconds of one query."""
    times = []
    for row in range(min(SINGLE, queries.shape[0])):
        start = time.perf_counter()
        index.search(queries[row], k, **options)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[len(times) // 5 :])


def processor(index: OpenSearchIndex) -> float:
    """Seconds of processor time that the node has used so far."""
    time.sleep(1.1)  # it looks once a second
    nodes = index.server.request("GET", "/_nodes/stats/process")["nodes"].values()
    return sum(node["process"]["cpu"]["total_in_millis"] for node in nodes) / 1000


def fill(index: OpenSearchIndex, vectors: sp.csr_matrix) -> dict[str, float]:
    """Add the vectors, merge, and say what that took."""
    before = processor(index)
    start = time.perf_counter()
    for first in range(0, vectors.shape[0], 2_000):
        chunk = vectors[first : first + 2_000]
        index.add([f"doc{first + row}" for row in range(chunk.shape[0])], chunk)
    seconds = time.perf_counter() - start
    used = processor(index) - before
    index.server.request("POST", f"/{index.name}/_forcemerge", max_num_segments=1)
    for path in ("_flush", "_refresh"):  # or the segments before it count, too
        index.server.request("POST", f"/{index.name}/{path}")
    options = {"include_segment_file_sizes": True}
    stats = index.server.request("GET", f"/{index.name}/_stats/segments", **options)["_all"]["primaries"]
    files = {kind: file["size_in_bytes"] for kind, file in stats["segments"]["file_sizes"].items()}
    size = sum(files.values())
    stored = sum(files.get(kind, 0) for kind in ("fdt", "fdx", "fdm"))  # the documents as they came
    return {
        "documents": vectors.shape[0],
        "postings": int(vectors.nnz),
        "documents_per_second": vectors.shape[0] / seconds,
        "processor_ms_per_document": 1000 * used / vectors.shape[0],
        "bytes": size,
        "bytes_per_posting": size / vectors.nnz,
        # What a search reads; None where the segment is one file.
        "searched_bytes_per_posting": None if "cfs" in files else (size - stored) / vectors.nnz,
    }


def measure(
    host: str, name: str, vectors: sp.csr_matrix, queries: sp.csr_matrix, *, seismic: bool = True
) -> dict[str, Any]:
    """All searches on one set of vectors."""
    queries = queries[:BATCH]
    found: dict[str, Any] = {"tokens_per_query": queries.nnz / queries.shape[0]}
    address = f"opensearch+http://{host}/benchmark-{name}-{os.getpid()}"
    options: dict[str, Any] = {"shards": 1, "replicas": 0, "timeout": 600}

    def opened(**more: Any) -> OpenSearchIndex:
        query = "&".join(f"{key}={value}" for key, value in {**options, **more}.items())
        parameters = {"approximate_threshold": 1} if more else None
        target = f"{address}{'-seismic' if more else ''}?{query}"
        return OpenSearchIndex(target, vocabulary_size=vectors.shape[1], seismic=parameters)

    def row(index: OpenSearchIndex, label: str, truth: Sequence[Hits] | None, **how: Any) -> list[Hits]:
        times, costs = [], []
        for _ in range(3):  # the least: what runs beside it, Java's compiler among it, only adds
            before = processor(index)
            start = time.perf_counter()
            hits = index.search(queries, 100, **how)
            times.append(time.perf_counter() - start)
            costs.append(processor(index) - before)
        seconds, used = min(times), min(costs)
        numbers = {f"recall@{k}": recall(hits, hits if truth is None else truth, k) for k in (10, 100)}
        numbers |= {f"ms@{k}": latency(index, queries, k, **how) for k in (10, 100)}
        numbers["queries_per_second@100"] = queries.shape[0] / seconds
        numbers["processor_ms@100"] = 1000 * used / queries.shape[0]
        found[label] = {key: round(value, 4) for key, value in numbers.items()}
        print(f"{name}: {label}: {json.dumps(found[label])}", flush=True)
        return hits

    index = opened()
    try:
        found["rank_features index"] = fill(index, vectors)
        print(f"{name}: {json.dumps(found['rank_features index'])}", flush=True)
        truth = row(index, "exact", None)
        embedded = EmbeddedIndex()
        embedded.add([f"doc{row}" for row in range(vectors.shape[0])], vectors)
        close = [recall(embedded.search(queries, k), truth, k) for k in (10, 100)]
        found["exact"] |= {
            "embedded@10": close[0],
            "embedded@100": close[1],
        }  # which cuts no weights to 9 bits
        row(index, "two phases", truth, two_phase=True)
    finally:
        index.server.request("DELETE", f"/{index.name}")
    if not seismic:
        return found
    index = opened(vectors="sparse_vector")
    try:
        found["sparse_vector index"] = fill(index, vectors)
        print(f"{name}: {json.dumps(found['sparse_vector index'])}", flush=True)
        for factor in HEAP_FACTORS:
            row(index, f"seismic, heap_factor {factor:g}", truth, seismic={"heap_factor": factor})
    finally:
        index.server.request("DELETE", f"/{index.name}")
    return found


def write(results: dict[str, Any]) -> None:
    """Write what is known so far."""
    results["machine"] = {"cores": os.cpu_count(), "heap": "1 GB", "date": time.strftime("%Y-%m-%d")}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoded", type=Path)
    parser.add_argument("--collection", type=Path)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "st-l0-mini")
    parser.add_argument("--synthetic", type=int, nargs="*", default=(5_000, 100_000), help="documents")
    given = parser.parse_args()
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    with server() as host:
        if given.encoded is not None and given.collection is not None:
            shards = list(read_shards(given.encoded))
            collection = read_collection(given.collection, "test")
            queries = QueryEncoder.from_pretrained(given.model).encode_query(collection.queries.values())
            vectors = sp.vstack([shard.vectors for shard in shards], format="csr")
            results[collection.name] = measure(host, collection.name, vectors, queries)
        documents, asked = token_probabilities()
        drawn = draw_queries(documents, asked)
        for count in given.synthetic:
            vectors = draw(count, documents, seed=0)
            results[f"synthetic-{count}"] = measure(host, "synthetic", vectors, drawn, seismic=False)
            write(results)
    write(results)


if __name__ == "__main__":
    main()
