"""What an evaluation costs besides encoding: sentence-transformers and mteb, stock and on an index.

Claim: with the same vectors and the same metrics, the evaluator on an index takes a fraction of stock's time
and memory; stock's own evaluator is several times faster, too, as soon as it is given an `st_l0` encoder.

    python benchmarks/evaluation.py [--threads 1]

20,000 documents and 300 queries: vectors of a real encoder, of which each document is varied fifty times.
Texts are numbers here and encoding is a look-up: what is timed is the scoring, the ranking and the metrics.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import sentence_transformers
from common import medians, parse_threads, real_encoder, real_texts, report
from sentence_transformers.sparse_encoder.evaluation import SparseInformationRetrievalEvaluator

from st_l0 import SparseEncoder
from st_l0.evaluation import IndexInformationRetrievalEvaluator, MtebModel
from st_l0.evaluation.metrics import quality
from st_l0.utils.sparse import active_dims, as_csr, as_torch

DOCUMENTS, QUERIES, VARIATIONS = 20_000, 300, 50
REPEATS = 3


class Known(SparseEncoder):
    """An encoder that knows the vectors: a text is the number of its row."""

    queries: sp.csr_matrix
    documents: sp.csr_matrix

    def encode_query(self, inputs: list[str], **options: Any) -> Any:
        """Look up."""
        return as_torch(self.queries[[int(text) for text in inputs]])

    def encode_document(self, inputs: list[str], **options: Any) -> Any:
        """Look up."""
        return as_torch(self.documents[[int(text) for text in inputs]])


class KnownToStock(Known):
    """The same, with the similarity of plain sentence-transformers."""

    similarity = sentence_transformers.SparseEncoder.similarity


def vary(vectors: sp.csr_matrix, times: int) -> sp.csr_matrix:
    """Other documents of the same statistics: a tenth of the entries left out, weights changed by a fifth."""
    random = np.random.default_rng(0)
    varied = sp.vstack([vectors] * times, format="csr")
    varied.data *= random.uniform(0.8, 1.2, len(varied.data)).astype(np.float32)
    varied.data[random.random(len(varied.data)) < 0.1] = 0
    return as_csr(varied)


def peak_mebibytes(run: Callable[[], object]) -> float:
    """Memory at the peak of a run, above what was held before (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0.0

    def read(field: str) -> float:
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024

    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = read("VmRSS")
    run()
    return read("VmHWM") - before


def mteb_search(model: Any) -> dict[str, dict[str, float]]:
    """Index and search as `mteb.evaluate` does."""
    from datasets import Dataset
    from mteb.mocks.mock_tasks import MockRetrievalTask

    def rows(count: int) -> Dataset:
        numbers = [str(number) for number in range(count)]
        return Dataset.from_dict({"id": numbers, "text": numbers})

    common = {
        "task_metadata": MockRetrievalTask.metadata,
        "hf_split": "test",
        "hf_subset": "default",
        "encode_kwargs": {"batch_size": 32, "show_progress_bar": False},
        "num_proc": None,
    }
    model.index(rows(DOCUMENTS), **common)
    found: dict[str, dict[str, float]] = model.search(rows(QUERIES), top_k=1000, top_ranked=None, **common)
    return found


def assert_same(ours: dict[str, float], stock: dict[str, float]) -> None:
    """Stop unless both hold the same metrics."""
    assert list(ours) == list(stock), "the names of the metrics differ"
    for key, value in stock.items():
        assert math.isclose(ours[key], value, abs_tol=1e-9), f"{key} differs"


def main() -> None:
    """Time the sides in turn, compare their metrics, then look at the memory of each."""
    threads = parse_threads(__doc__)
    encoder, pairs = real_encoder(64), real_texts()[: DOCUMENTS // VARIATIONS]
    once: Any = encoder.encode_document([document for _, document in pairs], convert_to_scipy=True)
    asked: Any = encoder.encode_query([query for query, _ in pairs[:QUERIES]], convert_to_scipy=True)
    models = []
    for kind in (KnownToStock, Known):
        model = kind(modules=list(encoder.children()), device="cpu", similarity_fn_name="dot")
        model.queries, model.documents = asked, vary(once, VARIATIONS)
        models.append(model)
    dense, indexed = models
    dims = active_dims(indexed.documents).mean()
    print(f"{indexed.documents.shape[0]:,} documents of {dims:.0f} active dims, {QUERIES} queries")

    numbers = [str(number) for number in range(DOCUMENTS)]
    given: Any = {
        "queries": {number: number for number in numbers[:QUERIES]},
        "corpus": {number: number for number in numbers},
        "relevant_docs": {number: set(numbers[int(number) :: len(pairs)]) for number in numbers[:QUERIES]},
    }
    stock, ours = SparseInformationRetrievalEvaluator(**given), IndexInformationRetrievalEvaluator(**given)
    sides: dict[str, Callable[[], Any]] = {
        "stock": lambda: stock(dense),
        "stock, our encoder": lambda: stock(indexed),
        "ours": lambda: ours(indexed),
    }
    metrics = [run() for run in sides.values()]
    for measured in metrics[1:]:
        assert_same(measured, metrics[0])
    print(f"equal metrics, nDCG@10 {metrics[0]['dot_ndcg@10']:.4f}")
    times = medians(sides, REPEATS)
    memory = {name: peak_mebibytes(run) for name, run in sides.items()}

    from mteb.models import SearchEncoderWrapper, SparseEncoderWrapper

    searches: dict[str, Callable[[], Any]] = {
        "mteb, dense": lambda: mteb_search(SearchEncoderWrapper(SparseEncoderWrapper(dense))),
        "mteb, our index": lambda: mteb_search(MtebModel(indexed, "org/known")),
    }
    judged = {query: dict.fromkeys(found, 1) for query, found in given["relevant_docs"].items()}
    runs = {
        name: {query: {id: score for id, score in hits.items() if score} for query, hits in run().items()}
        for name, run in searches.items()
    }  # without documents of score 0, which only the dense way returns
    assert_same(*(quality(judged, found, 1000) for found in runs.values()))
    times |= medians(searches, REPEATS)
    memory |= {name: peak_mebibytes(run) for name, run in searches.items()}

    for name, seconds in times.items():
        print(f"{name:20} {seconds:7.3f} s {memory[name]:7.0f} MiB at the peak")
    ratio = times["mteb, dense"] / times["mteb, our index"]
    print(f"mteb x {ratio:.1f}; stock given our encoder x {times['stock'] / times['stock, our encoder']:.1f}")
    report(
        "evaluation on an index",
        ours=times["ours"],
        stock=times["stock"],
        unit="s",
        threads=threads,
        goal=None,
    )


if __name__ == "__main__":
    main()
