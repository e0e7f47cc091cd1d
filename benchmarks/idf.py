"""Which IDF a collection should be searched with: its own, smoothed or not, a larger one's, or their mean.

    python benchmarks/idf.py COLLECTION... --general TABLE [--model models/st-l0-mini] [--words COLLECTION...]

Collections are as BEIR has them, TABLE is an ``idf.json`` of the model's vocabulary, such as MS MARCO's. A
document's vector does not depend on the table: documents are encoded once, into ``--work``, where a run that
was stopped goes on. The same tables weigh a second kind of documents, *words*: their word pieces, saturated
as BM25 does (k1 1.2, b 0.75), which no table had a part in training. ``--words`` names collections for it
alone.

How many documents the general table counts as is chosen on all other collections ("left out"). To see how
many documents a table of one's own needs, it is counted on random parts of each collection, which is searched
whole; the means of ``--draws`` draws.

Writes ``NAME.json`` and ``NAME.md``, NAME as ``--output`` says.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from words_beside import encode

from st_l0 import SparseEncoder
from st_l0.data import Collection, own_documents, read_collection
from st_l0.encoder.idf import document_frequencies, read_idf
from st_l0.encoder.smoothing import smooth_idf
from st_l0.evaluation.measure import search_collection
from st_l0.evaluation.metrics import quality
from st_l0.index import EmbeddedIndex
from st_l0.utils.words import K1, B

GENERAL = (100, 300, 1000, 3000, 10_000, 30_000, 100_000)
SIZES = (100, 300, 1000, 3000, 10_000)
Table = np.ndarray


class Searched:
    """A collection with vectors of its documents, to be searched with any table.

    Args:
        collection: What is searched.
        vectors: Of its documents, ``(documents, vocabulary)``.
        pieces: Of its queries, 0 and 1, ``(queries, vocabulary)``.
    """

    def __init__(self, collection: Collection, vectors: sp.csr_matrix, pieces: sp.csr_matrix) -> None:
        self._collection = collection
        self._pieces = pieces
        self._own = own_documents(collection.corpus, collection.queries, collection.qrels)
        self._index = EmbeddedIndex()
        self._index.add(list(collection.corpus), vectors)

    def ndcg(self, table: Table) -> float:
        """NDCG@10 of queries that weigh their pieces by a table."""
        queries = self._pieces.multiply(table[None, :]).tocsr().astype(np.float32)
        queries.eliminate_zeros()
        run, _ = search_collection(self._index, self._collection, queries, 100, self._own, False, 0.0)
        return quality(self._collection.qrels, run)["ndcg@10"]


def count(texts: list[str], tokenizer: object) -> sp.csr_matrix:
    """How often each piece is in each text, ``(texts, vocabulary)``; whole texts, without special tokens."""
    rows = tokenizer(texts, add_special_tokens=False, truncation=False, padding=False)["input_ids"]
    lengths = [len(row) for row in rows]
    columns = np.fromiter((piece for row in rows for piece in row), np.int64, sum(lengths))
    places = np.repeat(np.arange(len(rows)), lengths)
    ones = np.ones(len(columns), np.float32)
    return sp.csr_matrix((ones, (places, columns)), shape=(len(rows), len(tokenizer)))


def saturate(counts: sp.csr_matrix) -> sp.csr_matrix:
    """Counts as BM25 weighs them, without IDF: ``tf / (tf + k1 * (1 - b + b * length / mean length))``."""
    lengths = np.asarray(counts.sum(axis=1)).ravel()
    norm = K1 * (1 - B + B * lengths / lengths.mean())
    found = counts.copy()
    found.data /= found.data + np.repeat(norm, np.diff(found.indptr)).astype(np.float32)
    return found


def tables(frequencies: Table, documents: int, general: Table, tokenizer: object) -> dict[str, Table]:
    """Name to table, of all that are compared."""

    def own(**options: object) -> Table:
        return smooth_idf(frequencies, documents, tokenizer, **options)

    off = own(punctuation=False, unseen=1.0) == 0  # special tokens and punctuation
    ones = np.where(off, 0, 1).astype(np.float32)
    found = {
        "binary": ones,
        "general, punctuation": general,
        "general": general * ones,
        "own, as counted": own(unseen=None, punctuation=True),
        "own, rarest": own(unseen=None),
        "own": own(),
        "own, unseen 0": own(unseen=0.0),
    }
    return (
        found
        | {f"mean {number}": own(general=general, general_documents=number) for number in GENERAL}
        | {
            f"mean {number}, rarest": own(unseen=None, general=general, general_documents=number)
            for number in GENERAL
        }
    )


def parts(
    counts: sp.csr_matrix, searched: Searched, tokenizer: object, draws: int, **options: object
) -> dict[int, float]:
    """Size of a random part to the mean nDCG@10 of tables counted on such parts."""
    binary = counts.copy()
    binary.data[:] = 1
    found = {}
    for size in (size for size in SIZES if size <= counts.shape[0]):
        values = []
        for seed in range(draws):
            chosen = np.random.default_rng(seed).choice(counts.shape[0], size, replace=False)
            frequencies = np.asarray(binary[chosen].sum(axis=0)).ravel().astype(np.int64)
            values.append(searched.ndcg(smooth_idf(frequencies, size, tokenizer, **options)))
        found[size] = statistics.fmean(values)
    return found


def measure(
    collection: Collection, kinds: list[str], model: SparseEncoder, general: Table, given: argparse.Namespace
) -> dict[str, dict]:
    """Kind of documents to nDCG@10 of each table, and of parts."""
    tokenizer, texts = model.tokenizer, list(collection.corpus.values())
    pieces = count(list(collection.queries.values()), tokenizer)
    pieces.data[:] = 1
    pieces[:, tokenizer.all_special_ids] = 0
    pieces.eliminate_zeros()
    queries = model.encode_query(list(collection.queries.values()), convert_to_scipy=True)
    assert abs(pieces.multiply(model.query_weights[None, :]) - queries).max() == 0
    counts = count(texts, tokenizer)
    frequencies, documents = document_frequencies(texts, tokenizer, progress=False)
    assert (frequencies == np.asarray((counts > 0).sum(axis=0)).ravel()).all()
    found = {}
    for kind in kinds:
        name = Path(given.model).name
        vectors = saturate(counts) if kind == "words" else encode(model, name, collection, given.work)
        searched = Searched(collection, vectors, pieces)
        compared = tables(frequencies, documents, general, tokenizer)
        found[kind] = {
            "documents": documents,
            "seen": int((frequencies > 0).sum()),
            "ndcg@10": {name: searched.ndcg(table) for name, table in compared.items()},
            "parts": {
                "own": parts(counts, searched, tokenizer, given.draws),
                "mean": parts(counts, searched, tokenizer, given.draws, general=general),
            },
        }
    return found


def left_out(found: Mapping[str, dict], suffix: str = "") -> dict[str, tuple[int, float]]:
    """Collection to the number of general documents that is best on all others, and its nDCG@10 there."""
    chosen = {}
    for name, one in found.items():
        others = [other for key, other in found.items() if key != name] or [one]
        best = max(GENERAL, key=lambda n: statistics.fmean(o["ndcg@10"][f"mean {n}{suffix}"] for o in others))
        chosen[name] = best, one["ndcg@10"][f"mean {best}{suffix}"]
    return chosen


def markdown(found: Mapping[str, dict]) -> str:
    """The numbers of one kind of documents for people."""
    names = list(found)
    head = ["table", *(f"{name} ({found[name]['documents']:,})" for name in names), "average"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]

    def row(title: str, values: list[float]) -> None:
        rows.append([title, *(f"{value:.4f}" for value in values), f"{statistics.fmean(values):.4f}"])

    for table in next(iter(found.values()))["ndcg@10"]:
        row(table, [found[name]["ndcg@10"][table] for name in names])
        if table == f"mean {GENERAL[-1]}":
            chosen = left_out(found)
            row("mean, left out", [chosen[name][1] for name in names])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    text += "\n\nChosen with each left out: "
    text += ", ".join(f"{name} {number:,}" for name, (number, _) in left_out(found).items()) + ".\n\n"
    head = ["documents counted", *(f"{name}, {kind}" for name in names for kind in ("own", "mean"))]
    rows = [head, ["---:"] * len(head)]
    for size in SIZES:
        cells = [found[name]["parts"][kind].get(size) for name in names for kind in ("own", "mean")]
        if any(cell is not None for cell in cells):
            rows.append([f"{size:,}", *("" if cell is None else f"{cell:.4f}" for cell in cells)])
    return text + "\n".join(f"| {' | '.join(cells)} |" for cells in rows) + "\n"


def main() -> None:
    """Measure all tables on all collections."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("collections", nargs="*", type=Path)
    parser.add_argument("--words", nargs="*", type=Path, default=[], help="For words alone.")
    parser.add_argument("--general", required=True, help="Table of a larger corpus.")
    parser.add_argument("--model", default="models/st-l0-mini")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--work", type=Path, default=Path("runs/idf"))
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results/idf"))
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    model = SparseEncoder.from_pretrained(given.model, device="cpu")
    general = read_idf(given.general, model.tokenizer)
    name = Path(given.model).name
    results: dict[str, dict] = {name: {}, "words": {}}
    for place in (*given.collections, *given.words):
        collection = read_collection(place)
        kinds = ["words"] if place in given.words else [name, "words"]
        for kind, found in measure(collection, kinds, model, general, given).items():
            results[kind][collection.name] = found
        print(f"{collection.name}: measured", flush=True)
    text = "\n".join(f"**{kind}**\n\n{markdown(found)}" for kind, found in results.items() if found)
    print(text)
    given.output.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    given.output.with_suffix(".md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
