"""The demo at 100,000 documents: a whole answer to a keystroke, over HTTP, beside the bare search.

Claim: ``/search`` with ten hits, their texts and what each token adds to their scores takes less than 20 ms
(median), from the request's first byte to the parsed answer.

    python benchmarks/demo.py [--threads 1]

The server is ``st-l0 demo`` in a process of its own, the connection is kept, as a browser does. Vectors are
those of ``search.py``; which token is how frequent is drawn among the whole words of the shipped model's
vocabulary, so that queries have texts. Texts have 70 words. *Stock* is `encode_query` and `search` in this
process. The second row counts words, too; the third is what HTTP, threads and JSON take
without any search (``/about``); the last asks for a document's expansions (``/explain``).
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from common import parse_threads
from search import draw, draw_queries, names, token_probabilities

from st_l0.encoder.queries import QueryEncoder
from st_l0.index import EmbeddedIndex

MODEL = Path(__file__).parents[1] / "models" / "st-l0-mini"
DOCUMENTS, WORDS, TIMED, K, GOAL = 100_000, 70, 200, 10, 0.020


def fill(folder: Path, encoder: QueryEncoder) -> list[str]:
    """Make the index; texts of queries for it."""
    probabilities, of_queries = token_probabilities()
    vocabulary = encoder.tokenizer.get_vocab()
    whole = [number for token, number in vocabulary.items() if token.isascii() and token.isalpha()]
    generator = np.random.default_rng(7)
    order = generator.permutation(whole)
    rest = np.setdiff1d(np.arange(len(probabilities)), order)
    order = np.concatenate([order, rest])  # the token of each rank
    token_of = {number: token for token, number in vocabulary.items()}
    vectors = draw(DOCUMENTS, probabilities, seed=1)
    shape = vectors.shape
    vectors = sp.csr_matrix((vectors.data, order[vectors.indices], vectors.indptr), shape=shape)
    shares = probabilities[: len(whole)] / probabilities[: len(whole)].sum()
    chosen = generator.choice(order[: len(whole)], (DOCUMENTS, WORDS), p=shares)
    texts = [" ".join(token_of[number] for number in row) for row in chosen.tolist()]
    metadata = {"model": str(MODEL), "query_fingerprint": encoder.query_fingerprint()}
    index = EmbeddedIndex(folder, metadata=metadata, bm25="english")
    index.add(names(0, DOCUMENTS), vectors, texts)
    queries = draw_queries(probabilities, of_queries)
    rows = (row.indices for row in queries[: 3 * TIMED])
    found = [row for row in rows if len(row) and row.max() < len(whole)]
    return [" ".join(token_of[order[rank]] for rank in row) for row in found[:TIMED]]


def show(claim: str, seconds: list[float], bare: float, threads: int, goal: float | None) -> None:
    """Print one line for people and one for machines."""
    median, slow = statistics.median(seconds), float(np.percentile(seconds, 95))
    print(f"{claim}: {median * 1e3:.2f} ms, 95 % below {slow * 1e3:.2f} ms; bare search {bare * 1e3:.2f} ms")
    result = {"claim": claim, "ours": median * 1e3, "stock": bare * 1e3, "ratio": bare / median}
    print(f"RESULT {json.dumps({**result, 'unit': 'ms', 'threads': threads})}", flush=True)
    if goal is not None and median > goal:
        raise SystemExit(f"{claim}: the goal of {goal * 1e3:g} ms is missed")


def main() -> None:
    """Time both sides in turn."""
    threads = parse_threads(__doc__)
    encoder = QueryEncoder.from_pretrained(MODEL)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "index")
        queries = fill(folder, encoder)
        index = EmbeddedIndex(folder, create=False)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-u", "-m", "st_l0", "demo", str(folder), "--port", "0"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            address = urllib.parse.urlsplit(process.stdout.readline().split()[0])
            connection = http.client.HTTPConnection(address.hostname or "", address.port)

            def ask(path: str, **parameters: object) -> dict[str, object]:
                connection.request("GET", f"{path}?{urllib.parse.urlencode(parameters)}")
                answer = connection.getresponse()
                content: dict[str, object] = json.loads(answer.read())
                assert answer.status == 200, content
                return content

            sides: dict[str, Callable[[str], object]] = {
                "bare": lambda query: index.search(encoder.encode_query([query]), K)[0],
                "search": lambda query: ask("/search", q=query, k=K),
                "words": lambda query: ask("/search", q=query, k=K, bm25=2),
                "http": lambda query: ask("/about"),
                "explain": lambda query: ask("/explain", q=query, id="doc77"),
            }
            times: dict[str, list[float]] = {name: [] for name in sides}
            for round_ in range(2):  # the first one unmeasured: postings are proven when they are first used
                for query in queries:
                    answers = {}
                    for name, side in sides.items():
                        start = time.perf_counter()
                        answers[name] = side(query)
                        if round_:
                            times[name].append(time.perf_counter() - start)
                    hits = answers["search"]["hits"]  # type: ignore[index]
                    assert [hit["id"] for hit in hits] == [hit.id for hit in answers["bare"]]  # type: ignore[attr-defined]
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        flops = statistics.mean(
            float(index.document_frequencies(encoder.encode_query([query]).indices).sum()) / DOCUMENTS
            for query in queries
        )
    print(f"{len(queries)} queries, FLOPS {flops:.2f}")
    bare = statistics.median(times["bare"])
    show("a whole /search answer, 100,000 documents", times["search"], bare, threads, GOAL)
    show("… with words", times["words"], bare, threads, GOAL)
    show("… an answer without a search (/about)", times["http"], bare, threads, None)
    show("… a document's expansions (/explain)", times["explain"], bare, threads, None)


if __name__ == "__main__":
    main()
