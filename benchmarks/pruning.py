"""What pruning documents costs and saves: nDCG@10, FLOPS and the time of a query against their active dims.

    python benchmarks/pruning.py COLLECTION... [--model models/st-l0-mini] [--bm25 WEIGHT ...]

Collections are as BEIR has them. Documents are encoded once, into ``--work``, where a run that was stopped
goes on; each index is made as ``st-l0 index --max-active-dims`` makes it. The times are medians over all
queries, one at a time on one thread, top 10; the indexes take turns, so that what disturbs one disturbs all.
``--bm25`` adds a curve with the words of the documents beside them, for each weight.

Writes ``NAME.json``, ``NAME.md`` and ``NAME.svg``, NAME as ``--output`` says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import scipy.sparse as sp

from st_l0 import SparseEncoder
from st_l0.data import Collection, Document, own_documents, read_collection
from st_l0.evaluation.metrics import best, flops, quality
from st_l0.index import Index, open_index
from st_l0.indexing.encode import encode_corpus
from st_l0.indexing.shards import read_shards
from st_l0.utils.sparse import active_dims, keep_largest

LIMITS = (None, 300, 200, 150, 100, 75, 50)
REPEATS, K = 5, 100


def encode(model: SparseEncoder, name: str, collection: Collection, work: Path) -> sp.csr_matrix:
    """The documents' vectors, ``(documents, vocabulary)``, through files."""
    documents = [Document(id, text) for id, text in collection.corpus.items()]
    encode_corpus(model, documents, work / collection.name, name=name)
    return sp.vstack([shard.vectors for shard in read_shards(work / collection.name)], format="csr")


def make_index(
    folder: Path, collection: Collection, vectors: sp.csr_matrix, limit: int | None, words: bool
) -> Index:
    """An index of the pruned documents, with their words if asked for."""
    options: dict[str, Any] = {"bm25": "english"} if words else {}
    index = open_index(folder, metadata={"max_active_dims": limit}, **options)
    index.add(list(collection.corpus), keep_largest(vectors, limit), list(collection.corpus.values()))
    return open_index(folder)


def measure(model: SparseEncoder, name: str, collection: Collection, given: argparse.Namespace) -> list[dict]:
    """A row for each limit and weight of the words: quality, cost and the queries' times in ms."""
    vectors = encode(model, name, collection, given.work)
    texts = list(collection.queries.values())
    queries = model.encode_query(texts, convert_to_scipy=True)
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    rows = []
    with TemporaryDirectory() as folder:
        for limit in LIMITS:
            index = make_index(Path(folder) / str(limit), collection, vectors, limit, bool(given.bm25))
            pruned = keep_largest(vectors, limit)
            for weight in (0.0, *given.bm25):
                words: dict[str, Any] = {"texts": texts, "bm25": weight} if weight else {}
                found = index.search(queries, K + bool(own), **words)
                run = {
                    query: best(hits.as_run(), K, without=query if query in own else None)
                    for query, hits in zip(collection.queries, found, strict=True)
                }
                rows.append(
                    {
                        "collection": collection.name,
                        "max_active_dims": limit,
                        "bm25": weight,
                        **quality(collection.qrels, run, K),
                        "flops": flops(queries, pruned),
                        "document_active_dims": float(active_dims(pruned).mean()),
                        "index": index,
                    }
                )
        times = np.array([_times(rows, queries, texts) for _ in range(REPEATS)])
    for row, own_times in zip(rows, np.median(times, axis=0), strict=True):
        del row["index"]
        row["query_ms"] = own_times.tolist()
        row["p50_ms"] = float(np.median(own_times))
    return rows


def _times(rows: list[dict], queries: sp.csr_matrix, texts: list[str]) -> list[list[float]]:
    """Milliseconds of each query in each index, ``(rows, queries)``."""
    found: list[list[float]] = [[] for _ in rows]
    for number, text in enumerate(texts):
        query = queries[number]
        first = number % len(rows)  # what comes first finds colder caches
        for place in (*range(first, len(rows)), *range(first)):
            row = rows[place]
            words: dict[str, Any] = {"texts": [text], "bm25": row["bm25"]} if row["bm25"] else {}
            start = time.perf_counter()
            row["index"].search(query, 10, **words)
            found[place].append(1000 * (time.perf_counter() - start))
    return found


def averages(rows: list[dict]) -> list[dict]:
    """A row for each limit and weight: means over the collections; the time is the median of all queries."""
    found = []
    for weight in dict.fromkeys(row["bm25"] for row in rows):
        for limit in LIMITS:
            own = [row for row in rows if (row["bm25"], row["max_active_dims"]) == (weight, limit)]
            means = {
                key: statistics.fmean(row[key] for row in own)
                for key in ("ndcg@10", f"recall@{K}", "flops", "document_active_dims")
            }
            times = [one for row in own for one in row["query_ms"]]
            of_each = {row["collection"]: row["ndcg@10"] for row in own}
            found.append(
                {"max_active_dims": limit, "bm25": weight, **means, "p50_ms": statistics.median(times)}
                | {"ndcg@10 of each": of_each}
            )
    return found


def table(points: list[dict], picture: str) -> str:
    """The averages for people, as Markdown."""
    names = list(points[0]["ndcg@10 of each"])
    head = ["dims kept", "BM25", *names, "nDCG@10", "recall@100", "FLOPS", "dims", "p50 ms", "of unpruned"]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for point in points:
        whole = next(one for one in points if one["bm25"] == point["bm25"])
        rows.append(
            [
                str(point["max_active_dims"] or "all"),
                f"{point['bm25']:g}" if point["bm25"] else "",
                *(f"{point['ndcg@10 of each'][name]:.4f}" for name in names),
                f"{point['ndcg@10']:.4f}",
                f"{point[f'recall@{K}']:.4f}",
                f"{point['flops']:.2f}",
                f"{point['document_active_dims']:.0f}",
                f"{point['p50_ms']:.3f}",
                f"{point['p50_ms'] / whole['p50_ms']:.2f}",
            ]
        )
    lines = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"![nDCG@10 against FLOPS]({picture})\n\n{lines}\n"


def plot(points: list[dict], path: Path) -> None:
    """nDCG@10 against FLOPS and against the time of a query, a curve for each weight of the words."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.5), layout="constrained")
    FigureCanvasSVG(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    costs = ((left, "flops", "FLOPS (tokens shared by a query and a document, on average)"),)
    costs += ((right, "p50_ms", "ms a query (median, one thread, top 10)"),)
    for axes, key, label in costs:
        for number, weight in enumerate(dict.fromkeys(point["bm25"] for point in points)):
            own = [point for point in points if point["bm25"] == weight]
            name = f"model + {weight:g} BM25" if weight else "model"
            x, y = [point[key] for point in own], [point["ndcg@10"] for point in own]
            axes.plot(x, y, marker="os^vD"[number % 5], color=f"C{number}", label=name)
            for point in own:
                text = str(point["max_active_dims"] or "all")
                axes.annotate(
                    text, (point[key], point["ndcg@10"]), (3, 4), textcoords="offset points", size=8
                )
        axes.set_xscale("log")
        axes.set_xlabel(label)
        axes.grid(visible=True, alpha=0.3)
    left.set_ylabel("nDCG@10, average of the collections")
    left.legend(fontsize="small")
    figure.savefig(path, format="svg", metadata={"Date": None})


def main() -> None:
    """Measure the collections that the command line names."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--model", default="models/st-l0-mini")
    parser.add_argument("--bm25", nargs="*", type=float, default=[])
    parser.add_argument("--work", type=Path, default=Path("runs/pruning"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "pruning")
    given = parser.parse_args()
    model = SparseEncoder.from_pretrained(given.model, device="cpu")
    rows = [
        row
        for folder in given.collections
        for row in measure(model, given.model, read_collection(folder), given)
    ]
    points = averages(rows)
    for row in rows:
        del row["query_ms"]
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"
    given.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"model": given.model, "machine": machine, "average": points, "collections": rows}
    given.output.with_suffix(".json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    text = table(points, given.output.with_suffix(".svg").name)
    given.output.with_suffix(".md").write_text(text, encoding="utf-8")
    plot(points, given.output.with_suffix(".svg"))
    print(text)


if __name__ == "__main__":
    main()
