"""What other engines find among vectors that were written for them, beside exact search.

    st-l0 encode MODEL COLLECTION --to ENCODED
    python benchmarks/other_engines.py MODEL ENCODED COLLECTION

Each engine indexes and searches the files of ``st-l0 encode --format`` and nothing else, as their guides say;
OpenSearch's Lucene stands in for Elasticsearch's. ``overlap`` is the part of the exact first k that an engine
has among its first k, averaged over the queries that find anything; ``score`` is the largest difference of a
score among the first k, relative to the exact one. Engines that are not installed are left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import scipy.sparse as sp

from st_l0 import SparseEncoder
from st_l0.data import Document, open_texts
from st_l0.indexing import read_shards, write_vectors
from st_l0.indexing.formats import FORMATS, SCALE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import other_engines as engines
from opensearch_server import UnavailableError, running

Scores = dict[str, dict[str, float]]
Find = Callable[..., engines.Run]


def exact(model: SparseEncoder, encoded: Path, queries: list[Document]) -> Scores:
    """Each query's score of each document, in float64."""
    shards = list(read_shards(encoded))
    ids = [id for shard in shards for id in shard.ids]
    documents = sp.vstack([shard.vectors for shard in shards], format="csr").astype(np.float64)
    asked = model.encode_query([query.text for query in queries], convert_to_scipy=True).astype(np.float64)
    scores = (asked @ documents.T).toarray()
    return {
        query.id: {id: score for id, score in zip(ids, row, strict=True) if score > 0}
        for query, row in zip(queries, scores, strict=True)
    }


def compare(name: str, run: engines.Run, scores: Scores, k: int, factor: float = 1) -> None:
    """Print a row: overlap, and the largest relative difference of a score."""
    shared, off = [], 0.0
    for query, expected in scores.items():
        best = sorted(expected, key=lambda id: -expected[id])[:k]
        if not best:
            continue
        found = run.get(query, [])[:k]
        shared.append(len({id for _, id in found} & set(best)) / len(best))
        off = max([off, *(abs(score / factor / expected[id] - 1) for score, id in found)])
    print(f"| {name} | {k} | {sum(shared) / len(shared):.4f} | {off:.1e} |", flush=True)


def systems(folders: dict[str, Path], url: str | None) -> Iterator[tuple[str, Find, float]]:
    """Name, function and factor of the scores of each engine that is here."""
    yield "jsonl, the guide's Python", partial(engines.by_guide, folders["jsonl"]), 1
    if engines.unavailable("seismic") is None:
        seismic = partial(engines.by_guide, folders["seismic"])
        yield "seismic, as the guide says", seismic, 1
        for cut, heap in (("10", "0.7"), ("3", "0.9")):
            yield (
                f"seismic, query_cut={cut}, heap_factor={heap}",
                partial(seismic, query_cut=cut, heap_factor=heap),
                1,
            )
    if engines.unavailable("qdrant") is None:
        yield "qdrant, its core (Edge)", partial(engines.qdrant, folders["qdrant"]), 1
    if engines.unavailable("anserini") is None:
        yield "anserini, as the guide says", partial(engines.anserini, folders["anserini"]), SCALE**2
    if url is not None:
        impacts = partial(engines.lucene_impacts, folders["anserini"], url)
        yield "anserini, Lucene of OpenSearch", impacts, SCALE**2
        features = partial(engines.lucene_features, folders["elasticsearch"], url)
        yield "elasticsearch, Lucene of OpenSearch", features, 1


def main() -> None:
    """Write, run, print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("encoded", type=Path)
    parser.add_argument("queries")
    given = parser.parse_args()
    model = SparseEncoder.from_pretrained(given.model, device="cpu")
    texts = open_texts(given.queries, "queries")
    queries = [Document(id, texts[id]) for id in texts.ids()]
    scores = exact(model, given.encoded, queries)
    with TemporaryDirectory() as place, ExitStack() as stack:
        folders = {format: Path(place, format) for format in FORMATS}
        options = {"name": given.model, "queries": queries, "progress": False}
        for format, folder in folders.items():
            write_vectors(model, given.encoded, folder, format, **options)
        url = None
        with suppress(UnavailableError):
            url = stack.enter_context(running(plugins=False, heap="512m")).url
        print("| engine | k | overlap | score |\n|---|---|---|---|")
        for name, find, factor in systems(folders, url):
            for k in (10, 100):
                compare(name, find(k=k), scores, k, factor)


if __name__ == "__main__":
    main()
