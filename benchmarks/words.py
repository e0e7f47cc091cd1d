"""Words beside vectors: what BM25 adds to a search, beside bm25s, and how many bytes its postings take.

Claims, at 100,000 documents and one query at a time (medians): the search of vectors and words takes at most
1.5 times that of vectors alone, and so does the whole query from its text on (tokens, stems, search); words
alone take at most half of bm25s; a posting of words takes at most 6 bytes on the disk. Words alone give the
scores of bm25s to 1e-5.

    python benchmarks/words.py [--threads 1] [--texts FOLDER]

The vectors of documents and queries are those of ``search.py``. Texts are real ones where a folder of
``*.jsonl.gz`` with ``query`` and ``positive`` is given; else they are drawn, 100 words a document on average
from the whole words of the shipped model's vocabulary, by 1 / rank, and queries are nine words of a document.
The index is a folder, merged into one segment, and, for the claim on several, five.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bm25s
import numpy as np
import scipy.sparse as sp
import torch
from common import report
from search import draw, draw_queries, names, show, token_probabilities

from st_l0.encoder.queries import QueryEncoder
from st_l0.index import EmbeddedIndex
from st_l0.index.embedded.asking import as_queries
from st_l0.index.embedded.searching import find
from st_l0.utils.words import K1, Analyzer, B

MODEL = Path(__file__).parents[1] / "models" / "st-l0-mini"
DOCUMENTS, PARTS, TIMED, K, WEIGHT = 100_000, 5, 300, 10, 2.0


def real_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Documents without repetitions, and queries, of all files below a folder."""
    documents: dict[str, None] = {}
    queries = []
    for path in sorted(folder.rglob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            for row in map(json.loads, stream):
                if "query" in row and "positive" in row:
                    documents[row["positive"]] = None
                    queries.append(row["query"])
    generator = np.random.default_rng(0)
    texts = list(documents)
    chosen = generator.choice(len(texts), min(DOCUMENTS, len(texts)), replace=False)
    asked = generator.choice(len(queries), 2 * TIMED, replace=False)
    return [texts[i] for i in chosen], [queries[i] for i in asked]


def drawn_texts(encoder: QueryEncoder) -> tuple[list[str], list[str]]:
    """As many drawn ones."""
    generator = np.random.default_rng(0)
    words = np.array([word for word in encoder.tokenizer.get_vocab() if word.isalpha()])
    generator.shuffle(words)
    share = 1 / np.arange(1, len(words) + 1)
    sizes = generator.geometric(0.01, DOCUMENTS)
    drawn = np.split(generator.choice(words, int(sizes.sum()), p=share / share.sum()), np.cumsum(sizes)[:-1])
    queries = [" ".join(generator.choice(drawn[i], 9)) for i in generator.integers(0, DOCUMENTS, 2 * TIMED)]
    return list(map(" ".join, drawn)), queries


def p50(sides: dict[str, Callable[[int], object]]) -> dict[str, float]:
    """Median milliseconds a query of each side, over queries asked once, after as many others.

    They take turns at each query, and at who begins, who finds its postings in no cache.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for row in range(2 * TIMED):
        first = row % len(sides)
        for name in [*sides, *sides][first : first + len(sides)]:
            start = time.perf_counter()
            sides[name](row)
            if row >= TIMED:
                times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(found) for name, found in times.items()}


def assert_same(index: EmbeddedIndex, engine: bm25s.BM25, queries: list[str], words: list[list[str]]) -> None:
    """Words alone score as bm25s does."""
    for hits, row in zip(index.search(None, 100, texts=queries, bm25=1.0), words, strict=True):
        scores = engine.get_scores(row)
        np.testing.assert_allclose(hits.scores, np.sort(scores)[::-1][: len(hits)], atol=1e-5)
        np.testing.assert_allclose(hits.scores, scores[[int(id[3:]) for id in hits.ids]], atol=1e-5)


def measure(
    index: EmbeddedIndex,
    vectors: sp.csr_matrix,
    queries: list[str],
    encoder: QueryEncoder,
    engine: bm25s.BM25,
    threads: int,
) -> None:
    """Time the sides."""
    snapshot, analyze = index._snapshot, Analyzer("english")
    rows = [vectors[row] for row in range(2 * TIMED)]
    nothing = sp.csr_matrix((1, vectors.shape[1]), dtype=np.float32)
    split = analyze(queries)
    weighed = [as_queries(snapshot, rows[row], [text], WEIGHT)[1] for row, text in enumerate(queries)]

    def whole(row: int, bm25: float) -> object:
        encoder.encode_query([queries[row]], convert_to_scipy=True)
        return index.search(rows[row], K, texts=[queries[row]] if bm25 else None, bm25=bm25)

    found = p50(
        {
            "vectors": lambda row: find(snapshot, rows[row], K, None),
            "both": lambda row: find(snapshot, rows[row], K, None, weighed[row]),
            "words": lambda row: find(snapshot, nothing, K, None, weighed[row]),
            "bm25s": lambda row: engine.retrieve([split[row]], k=K, show_progress=False),
            "its scores": lambda row: engine.get_scores(split[row]),
            "whole query, vectors": lambda row: whole(row, 0.0),
            "whole query, both": lambda row: whole(row, WEIGHT),
        }
    )
    what = f"{len(index):,} documents in {len(snapshot.segments)} segment(s), a query, top {K}"
    for claim, ours, stock, goal in (
        ("vectors and words, against vectors alone", "both", "vectors", 1 / 1.5),
        ("from the text on: the same", "whole query, both", "whole query, vectors", 1 / 1.5),
        ("words alone, against bm25s", "words", "bm25s", 2),
        ("the same against its scoring, before it selects", "words", "its scores", None),
    ):
        claim = f"{what}: {claim}"
        report(claim, ours=found[ours], stock=found[stock], unit="ms", threads=threads, goal=goal)


def main() -> None:
    """Build the index, check its scores, measure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--texts", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = QueryEncoder.from_pretrained(MODEL)
    texts, queries = drawn_texts(encoder) if arguments.texts is None else real_texts(arguments.texts)
    of_documents, of_queries = token_probabilities()
    corpus, vectors = draw(len(texts), of_documents, seed=0), draw_queries(of_documents, of_queries)
    analyze = Analyzer("english")
    vocabulary: dict[str, int] = {}
    numbers = [[vocabulary.setdefault(word, len(vocabulary)) for word in row] for row in analyze(texts)]
    engine = bm25s.BM25(method="lucene", k1=K1, b=B, backend="numpy")
    engine.index((numbers, vocabulary), show_progress=False)
    words = sum(map(len, numbers))
    print(f"{len(texts):,} texts of {words / len(texts):.0f} words, {len(vocabulary):,} different ones")
    del numbers
    with tempfile.TemporaryDirectory() as folder:
        index = EmbeddedIndex(Path(folder, "parts"), bm25="english")
        for part in np.array_split(np.arange(len(texts)), PARTS):
            start, stop = int(part[0]), int(part[-1]) + 1
            index.add(names(start, stop), corpus[start:stop], texts[start:stop])
        index.save(Path(folder, "whole"))
        for name in ("whole", "parts"):
            opened = EmbeddedIndex(Path(folder, name))
            assert_same(opened, engine, queries[:20], analyze(queries[:20]))
            measure(opened, vectors, queries, encoder, engine, arguments.threads)
        files = list(Path(folder, "whole").rglob("word_*.npy"))
        postings = sum(np.load(file, mmap_mode="r").size for file in files if file.stem == "word_rows")
        size = sum(file.stat().st_size for file in files)
        claim = f"words on the disk, {len(texts):,} documents, {postings / len(texts):.0f} postings each"
        show(claim, size / postings, "bytes a posting", arguments.threads, 6)


if __name__ == "__main__":
    main()
