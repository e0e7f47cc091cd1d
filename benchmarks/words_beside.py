"""What words beside the model bring: nDCG@10 of BM25, of a model, and of their sum, on several collections.

    python benchmarks/words_beside.py COLLECTION... --model models/st-l0-mini [--model ...] --output NAME

Collections are as BEIR has them. Documents are encoded once, into ``--work``, where a run that was stopped
goes on. The weight of BM25 is never chosen on the collection that it is reported on: "left out" takes the
weight of the highest average over the others, "auto" needs no labels at all (as ``st-l0 index --bm25``).
P-values are those of the difference between the sum (left out) and the model, paired, by randomisation.

Writes ``NAME.json`` and ``NAME.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from st_l0 import SparseEncoder
from st_l0.data import Collection, own_documents, read_collection
from st_l0.evaluation.measure import search_collection
from st_l0.evaluation.metrics import flops, quality_per_query
from st_l0.evaluation.significance import randomisation_test
from st_l0.index import EmbeddedIndex
from st_l0.index.calibration import weigh_by_documents
from st_l0.utils.sparse import keep_largest, silence_empty

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
CHUNK = 1024


def encode(model: SparseEncoder, name: str, collection: Collection, work: Path) -> sp.csr_matrix:
    """The documents' vectors, ``(documents, vocabulary)``, through files."""
    parts, texts = [], list(collection.corpus.values())
    for start in range(0, len(texts), CHUNK):
        file = work / f"{name}-{collection.name}-{start}.npz"
        if not file.exists():
            chunk = texts[start : start + CHUNK]
            vectors = model.encode_document(chunk, convert_to_scipy=True, show_progress_bar=False)
            sp.save_npz(file, silence_empty(vectors, chunk))
        parts.append(sp.load_npz(file))
    return sp.vstack(parts, format="csr")


def measure(
    model: SparseEncoder, name: str, collection: Collection, given: argparse.Namespace
) -> dict[str, Any]:
    """Quality at each weight, query by query, and the weight that needs no labels."""
    vectors = keep_largest(encode(model, name, collection, given.work), given.max_active_dims)
    texts = list(collection.corpus.values())
    index = EmbeddedIndex(bm25="english")
    index.add(list(collection.corpus), vectors, texts)
    queries = model.encode_query(list(collection.queries.values()), convert_to_scipy=True)
    own = own_documents(collection.corpus, collection.queries, collection.qrels)
    auto = weigh_by_documents(index, model, collection.corpus.items())

    def search(vectors: sp.csr_matrix, weight: float) -> dict[str, float]:
        run, _ = search_collection(index, collection, vectors, 100, own, False, weight)
        found = quality_per_query(collection.qrels, run)
        return {query: values["ndcg@10"] for query, values in found.items()}

    nothing = sp.csr_matrix(queries.shape, dtype=np.float32)
    return {
        "flops": flops(queries, vectors),
        "auto": auto,
        "bm25": search(nothing, 1.0),
        "sums": {weight: search(queries, weight) for weight in dict.fromkeys((*WEIGHTS, auto))},
    }


def mean(values: dict[str, float]) -> float:
    """Of all queries."""
    return statistics.fmean(values.values())


def summarise(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Collection → its numbers, the weight chosen on all the others."""
    rows = {}
    for name, one in found.items():
        others = [other for key, other in found.items() if key != name] or [one]
        chosen = max(WEIGHTS, key=lambda weight: statistics.fmean(mean(o["sums"][weight]) for o in others))
        model, both = one["sums"][0.0], one["sums"][chosen]
        rows[name] = {
            "bm25": mean(one["bm25"]),
            "model": mean(model),
            "flops": one["flops"],
            "left out": mean(both),
            "left out weight": chosen,
            "p": randomisation_test([[both[query] - model[query] for query in model]]),
            "auto": mean(one["sums"][one["auto"]]),
            "auto weight": one["auto"],
            **{f"weight {weight:g}": mean(one["sums"][weight]) for weight in WEIGHTS},
        }
    columns = [key for key in rows[next(iter(rows))] if key != "p"]
    rows["average"] = {key: statistics.fmean(rows[name][key] for name in found) for key in columns}
    differences = []
    for name, one in found.items():
        both = one["sums"][rows[name]["left out weight"]]
        differences.append([both[query] - one["sums"][0.0][query] for query in both])
    rows["average"]["p"] = randomisation_test(differences)
    return rows


def table(rows: dict[str, dict[str, float]], name: str) -> str:
    """The numbers of one model for people, as Markdown."""
    lines = [
        f"**{name}**",
        "",
        "| collection | BM25 | model | + BM25, weight left out | p | + BM25, auto | 1 | 2 | 3 | FLOPS |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for collection, row in rows.items():
        chosen = "" if collection == "average" else f" ({row['left out weight']:g})"
        auto = "" if collection == "average" else f" ({row['auto weight']:g})"
        sums = " | ".join(f"{row[f'weight {weight}']:.4f}" for weight in (1, 2, 3))
        lines.append(
            f"| {collection} | {row['bm25']:.4f} | {row['model']:.4f} | {row['left out']:.4f}{chosen} "
            f"| {row['p']:.4f} | {row['auto']:.4f}{auto} | {sums} | {row['flops']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all models on all collections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("collections", nargs="+", type=Path)
    parser.add_argument("--model", action="append", required=True, help="Folder or Hub id; repeatable.")
    parser.add_argument("--max-active-dims", type=int)
    parser.add_argument("--work", type=Path, default=Path("runs/words_beside"))
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    results, parts = {}, []
    for model in given.model:
        encoder, name = SparseEncoder.from_pretrained(model, device="cpu"), Path(model).name
        found = {}
        for place in given.collections:
            collection = read_collection(place)
            found[collection.name] = measure(encoder, name, collection, given)
            print(f"{name} {collection.name}: measured", flush=True)
        results[name] = summarise(found)
        parts.append(table(results[name], name))
        print(parts[-1], flush=True)
    given.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    given.output.with_suffix(".md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
