"""Embedded search: milliseconds a query, batches, threads, bytes, and how far from the memory's speed.

Claims: exact; a query takes at most 0.7 ms at 100,000 and 5 ms at 1,000,000 documents (median); a batch of
1,000 queries, top 1,000 of 100,000 documents, is at least 50 times faster than ``semantic_search`` and 20
times faster than the scoring of ``SparseInformationRetrievalEvaluator``; two threads serve a batch faster
than one; a posting takes at most 9 bytes, on the disk and in memory.

    python benchmarks/search.py [--threads 1] [--large]

The vectors are synthetic. How often a token occurs falls with its rank as 1 / rank^0.8, at most in half of
the documents and 175 tokens a document; queries draw 10 tokens from the same distribution raised to the power
that makes FLOPS, the mean number of matches between a query and a document, 1.7. Tokens are independent; that
does not matter here, for what a search costs depends on the lengths of the postings alone. Document weights
are log(1 + x) with exponential x, query weights the tokens' IDF. The index is a folder, opened memory-mapped,
with str ids; documents come 100,000 at a time, so the large indexes consist of several segments.

Stock is measured up to 100,000 documents: beyond, its tensors and their copies take more than 8 GB. It takes
seconds a query and a minute a batch, so few of its queries are timed, and its batch once. ``--large`` adds
5,000,000 documents (8 GB of disk, several minutes).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from common import medians, report
from numpy.typing import NDArray
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator
from sentence_transformers.util import dot_score, semantic_search
from torch import Tensor

from st_l0.index import EmbeddedIndex, Hits
from st_l0.utils.sparse import as_torch

VOCABULARY, ACTIVE, TOKENS, FLOPS = 30_522, 175, 10, 1.7
BLOCK, QUERIES, CORPUS_CHUNK = 100_000, 1_000, 50_000


def _spread(weights: NDArray[np.float64], total: float, highest: float) -> NDArray[np.float64]:
    """Probabilities proportional to ``weights``, at most ``highest``, that add up to ``total``."""
    low, high = 0.0, highest / weights.min()
    for _ in range(200):
        scale = (low + high) / 2
        low, high = (scale, high) if np.minimum(scale * weights, highest).sum() < total else (low, scale)
    return np.minimum(low * weights, highest)


def token_probabilities() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How likely each token is in a document and in a query, each of shape ``(vocabulary,)``."""
    documents = _spread(np.arange(1, VOCABULARY + 1) ** -0.8, ACTIVE, 0.5)
    low, high = 0.0, 3.0
    for _ in range(60):
        power = (low + high) / 2
        queries = _spread(documents**power, TOKENS, 0.9)
        low, high = (power, high) if queries @ documents < FLOPS else (low, power)
    return documents, queries


def draw(count: int, probabilities: NDArray[np.float64], seed: int) -> sp.csr_matrix:
    """Vectors with independent tokens and weights log(1 + x), shape ``(count, vocabulary)``."""
    generator = np.random.default_rng(seed)
    columns = []
    for probability in probabilities:
        if probability > 0.02:
            rows = np.flatnonzero(generator.random(count, dtype=np.float32) < probability)
        else:  # the gaps between the rows that have the token
            expected = count * probability
            gaps = generator.standard_exponential(int(expected + 6 * expected**0.5 + 12), dtype=np.float32)
            rows = np.cumsum((gaps / -np.log1p(-probability)).astype(np.int64) + 1) - 1
            rows = rows[: np.searchsorted(rows, count)]
        columns.append(rows.astype(np.int32))
    indptr = np.cumsum([0, *map(len, columns)])
    weights = np.log1p(generator.standard_exponential(int(indptr[-1]), dtype=np.float32)) + np.float32(0.01)
    shape = (count, len(probabilities))
    return sp.csc_matrix((weights, np.concatenate(columns), indptr), shape=shape).tocsr()


def draw_queries(documents: NDArray[np.float64], queries: NDArray[np.float64]) -> sp.csr_matrix:
    """Queries with IDF weights, shape ``(QUERIES, vocabulary)``."""
    matrix = draw(QUERIES, queries, seed=-1 % 2**32)
    matrix.data = -np.log(documents[matrix.indices]).astype(np.float32)
    return matrix


def names(start: int, stop: int) -> list[str]:
    """The ids of some documents."""
    return [f"doc{number}" for number in range(start, stop)]


class Scoring(SparseInformationRetrievalEvaluator):
    """The stock evaluator from vectors to ranked ids, without the model before and the metrics after it."""

    def __init__(self, queries: Tensor, chunks: Sequence[Tensor], ids: list[str], k: int) -> None:
        texts = {f"q{row}": "" for row in range(len(queries))}
        super().__init__(
            texts,
            dict.fromkeys(ids, ""),
            {query: {ids[0]} for query in texts},
            corpus_chunk_size=CORPUS_CHUNK,
            mrr_at_k=[k],
            ndcg_at_k=[k],
            accuracy_at_k=[k],
            precision_recall_at_k=[k],
            map_at_k=[k],
            score_functions={"dot": dot_score},
        )
        self._vectors, self._chunks = queries, chunks
        self.found: list[list[dict[str, Any]]] = []

    def __call__(self) -> list[list[dict[str, Any]]]:
        """The hits of each query."""
        self._next: Iterator[Tensor] = iter(self._chunks)
        self.compute_all_metrics(None)
        return self.found

    def embed_inputs(self, *_: object, encode_fn_name: str | None = None, **__: object) -> Tensor:
        """Give what is encoded already."""
        return self._vectors if encode_fn_name == "query" else next(self._next)

    def compute_metrics(self, queries_result_list: list[list[dict[str, Any]]]) -> dict[str, float]:
        """Keep the hits."""
        self.found = queries_result_list
        return {}

    def output_scores(self, scores: dict[str, float]) -> None:
        """There are none."""


def assert_same(ours: Sequence[Hits], stock: Sequence[Sequence[dict[str, Any]]], prefix: str) -> None:
    """Both found the same documents with the same scores; only scores that are equal may change places."""
    for hits, others in zip(ours, stock, strict=True):
        theirs = {f"{prefix}{hit['corpus_id']}": hit["score"] for hit in others if hit["score"] > 0}
        assert len(hits) == len(theirs)
        mine = dict(zip(hits.ids.tolist(), hits.scores.tolist(), strict=True))
        np.testing.assert_allclose(hits.scores, sorted(theirs.values(), reverse=True), rtol=1e-5)
        last = min(mine.values(), default=0.0)
        for document in mine.keys() & theirs.keys():
            assert abs(mine[document] - theirs[document]) < 1e-5 * mine[document]
        for document in mine.keys() ^ theirs.keys():
            score = mine.get(document, theirs.get(document, 0.0))
            assert score <= last * (1 + 1e-5), f"{document} is a hit for one side only"


def assert_exact(index: EmbeddedIndex, scores: NDArray[np.float64], queries: sp.csr_matrix, k: int) -> None:
    """The hits are those of a float64 product with all documents."""
    for expected, hits in zip(scores, index.search(queries, k), strict=True):
        best = np.sort(expected)[::-1][:k]
        np.testing.assert_allclose(hits.scores, best[best > 0], rtol=1e-5)
        np.testing.assert_allclose(hits.scores, expected[[int(id[3:]) for id in hits.ids]], rtol=1e-5)


def single(search: Callable[[sp.csr_matrix], object], queries: sp.csr_matrix) -> float:
    """Median milliseconds a query; the first is not counted."""
    times = []
    for row in range(queries.shape[0]):
        query = queries[row]
        start = time.perf_counter()
        search(query)
        times.append(1000 * (time.perf_counter() - start))
    return statistics.median(times[1:])


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a large copy on one core."""
    source, target = np.ones(1 << 26, dtype=np.float32), np.empty(1 << 26, dtype=np.float32)
    seconds = medians({"copy": lambda: np.copyto(target, source)}, 7)["copy"]
    return 2 * source.nbytes / seconds


def bytes_touched(index: EmbeddedIndex, queries: sp.csr_matrix) -> float:
    """Bytes a query must read or write: 8 a posting, and the scores zeroed, read twice and added to."""
    segments = index._snapshot.segments
    lengths = sum(np.diff(live.segment.vectors.indptr) for live in segments)
    return float(8 * lengths[queries.indices].sum() / queries.shape[0] + 3 * 4 * len(index))


def _resident() -> int:
    fields = Path("/proc/self/status").read_text(encoding="utf-8").split()
    return 1024 * int(fields[fields.index("VmRSS:") + 1])


def _memory(path: Path, queries: sp.csr_matrix, sink: Any) -> None:
    """In a process of its own: how much it grows by opening an index, reading all of it, and searching."""
    small = EmbeddedIndex()
    small.add(names(0, 2), queries[:2])
    small.search(queries[2])
    before = _resident()
    index = EmbeddedIndex(path)
    for live in index._snapshot.segments:
        live.segment.vectors.rows.max()
        live.segment.vectors.values.max()
        assert len(live.segment.all_ids)
    for row in range(20):
        index.search(queries[row])
    sink.send(_resident() - before)


def memory(path: Path, queries: sp.csr_matrix) -> int | None:
    """Bytes of memory that an open index takes, mapped pages included; None where /proc does not tell."""
    if not Path("/proc/self/status").exists():
        return None
    context = multiprocessing.get_context("spawn")
    source, sink = context.Pipe(duplex=False)
    process = context.Process(target=_memory, args=(path, queries, sink))
    process.start()
    sink.close()
    grown: int = source.recv()
    process.join()
    return grown


def show(claim: str, ours: float, unit: str, threads: int, goal: float | None = None) -> None:
    """A result without stock beside it."""
    print(f"{claim}: {ours:.4g} {unit}" + ("" if goal is None else f" (goal at most {goal:g})"))
    result = {"claim": claim, "ours": ours, "stock": None, "ratio": None, "unit": unit, "threads": threads}
    print(f"RESULT {json.dumps(result)}", flush=True)


def measure_stock(index: EmbeddedIndex, corpus: sp.csr_matrix, queries: sp.csr_matrix, threads: int) -> None:
    """One by one and in a batch against stock, on the same vectors."""
    size, tensor = len(index), as_torch(corpus)

    def by_stock(vectors: sp.csr_matrix, k: int) -> list[list[dict[str, Any]]]:
        return semantic_search(as_torch(vectors), tensor, top_k=k, score_function=dot_score)

    for k in (10, 100) if size < BLOCK else (10,):
        few = queries[: 10 if size < BLOCK else 3]
        assert_same(index.search(few, k), by_stock(few, k), "doc")
        ours = single(lambda query, k=k: index.search(query, k), queries[:201])
        stock = single(lambda query, k=k: by_stock(query, k), few)
        claim = f"a query, top {k}, {size:,} documents, against semantic_search"
        report(claim, ours=ours, stock=stock, unit="ms", threads=threads, goal=None)
    if size < BLOCK:
        return

    batch, k = as_torch(queries), 1000
    starts = range(0, size, CORPUS_CHUNK)
    chunks = [as_torch(corpus[start : start + CORPUS_CHUNK]) for start in starts]
    evaluator = Scoring(batch, chunks, names(0, size), k)
    ours = medians({"ours": lambda: index.search(queries, k)}, 3)["ours"]
    start = time.perf_counter()
    by_search = by_stock(queries, k)
    search_seconds = time.perf_counter() - start
    hits = index.search(queries, k)
    assert_same(hits, by_search, "doc")
    del by_search
    start = time.perf_counter()
    by_evaluator = evaluator()
    evaluator_seconds = time.perf_counter() - start
    assert_same(hits, by_evaluator, "")
    again = medians(
        {"ours": lambda: index.search(queries, k), "objects": lambda: [list(found) for found in hits]}, 3
    )
    what = f"{QUERIES:,} queries, top {k}, {size:,} documents"
    ours = statistics.mean([ours, again["ours"]])  # before and after stock's long runs
    for name, stock, goal in (
        ("semantic_search", search_seconds, 50),
        ("the evaluator's scoring", evaluator_seconds, 20),
    ):
        report(f"{what}, against {name}", ours=ours, stock=stock, unit="s", threads=threads, goal=goal)
    print(f"  (a million Hit objects of them, if wanted: {again['objects']:.2f} s more)")


def measure(index: EmbeddedIndex, path: Path, queries: sp.csr_matrix, bandwidth: float, threads: int) -> None:
    """Growth, threads, bytes."""
    size = len(index)
    goals = {100_000: 0.7, 1_000_000: 5.0}
    for k in (10, 100):
        found = single(lambda query, k=k: index.search(query, k), queries[:201])
        show(f"a query, top {k}, {size:,} documents", found, "ms", threads, goals.get(size))
        if k == 10:
            limit = 1000 * bytes_touched(index, queries[:201]) / bandwidth
            print(f"  copying the bytes that it touches takes {limit:.3f} ms: x {found / limit:.1f} of that")
    several = min(2, os.cpu_count() or 1)
    some = queries[: QUERIES if size <= BLOCK else 200]

    def batch(number: int, k: int) -> None:
        torch.set_num_threads(number)
        index.search(some, k)

    for k in (10, 1000) if size >= BLOCK else ():  # a smaller index uses one thread
        sides = {"one": lambda k=k: batch(1, k), "two": lambda k=k: batch(several, k)}
        times = medians(sides, 5)
        torch.set_num_threads(threads)
        claim = f"{some.shape[0]:,} queries, top {k}, {size:,} documents: {several} threads against 1"
        report(claim, ours=times["two"], stock=times["one"], unit="s", threads=several, goal=None)
    postings = sum(len(live.segment.vectors.rows) for live in index._snapshot.segments)
    disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    show(f"on the disk, {size:,} documents", disk / postings, "bytes a posting", threads, 9)
    grown = memory(path, some)
    if grown is not None:
        show(
            f"in memory, all pages read, {size:,} documents", grown / postings, "bytes a posting", threads, 9
        )


def main() -> None:
    """Measure at each size; print what the goals ask for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--large", action="store_true", help="also 5,000,000 documents")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    of_documents, of_queries = token_probabilities()
    queries = draw_queries(of_documents, of_queries)
    flops = of_queries @ of_documents
    print(f"{ACTIVE} tokens a document, {queries.nnz / QUERIES:.1f} a query, FLOPS {flops:.2f}")
    bandwidth = copy_bandwidth()
    print(f"a copy in memory on one core: {bandwidth / 1e9:.1f} GB/s, read and written")

    for size in (10_000, 100_000, 1_000_000, 5_000_000)[: 4 if arguments.large else 3]:
        print(f"--- {size:,} documents", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index")
            writer, scores = EmbeddedIndex(path), []
            checked = queries[: 50 if size <= BLOCK else 3]
            for start in range(0, size, BLOCK):
                corpus = draw(min(BLOCK, size), of_documents, seed=start)
                writer.add(names(start, start + corpus.shape[0]), corpus)
                dense = checked.toarray().astype(np.float64)
                scores.append(np.asarray(corpus.astype(np.float64) @ dense.T).T)
            del writer
            index = EmbeddedIndex(path, create=False)
            assert_exact(index, np.concatenate(scores, axis=1), checked, 1000)
            if size <= BLOCK:
                measure_stock(index, corpus, queries, arguments.threads)
            del corpus, scores
            measure(index, path, queries, bandwidth, arguments.threads)


if __name__ == "__main__":
    main()
