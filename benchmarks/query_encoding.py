"""Queries: ours against stock sentence-transformers, and against what a BM25 library takes to tokenize them.

Claims: 25 times faster one by one and 20 times in batches, with the type of result that stock gives; the same
with 2 and 24 layers on the document side; not more than 1.1 times what ``bm25s.tokenize`` takes.

    python benchmarks/query_encoding.py

Real queries (first sentences of docstrings, 10 words). Their words are remembered from the runs before, as
those of a service are; one claim is of queries that come for the first time, after some hundred others.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from typing import Any

import bm25s
import numpy as np
import torch
from common import medians, parse_threads, real_encoder, real_texts, report, stock_twin
from sentence_transformers import SparseEncoder as StockEncoder
from transformers import BertConfig, BertForMaskedLM

from st_l0 import SparseEncoder
from st_l0.encoder.queries import QueryLookup

REPEATS, SINGLE, LAYERS = 15, 100, (2, 24)


def one_by_one(model: StockEncoder, queries: list[str], **options: Any) -> list[Any]:
    """A vector a query, a call a query."""
    return [model.encode_query(query, **options) for query in queries]


def check(model: SparseEncoder, stock: StockEncoder, queries: list[str]) -> None:
    """Both give the same type and the same numbers."""
    ours, theirs = model.encode_query(queries), stock.encode_query(queries)
    assert (ours.layout, ours.dtype, ours.shape) == (theirs.layout, theirs.dtype, theirs.shape)
    assert torch.equal(ours.to_dense(), theirs.to_dense())
    matrix: Any = model.encode_query(queries, convert_to_scipy=True)
    assert np.array_equal(matrix.toarray(), theirs.to_dense().numpy())
    for one, other in zip(one_by_one(model, queries[:20]), one_by_one(stock, queries[:20]), strict=True):
        assert (one.layout, one.dtype, one.shape) == (other.layout, other.dtype, other.shape)
        assert torch.equal(one.to_dense(), other.to_dense())


def layered(layers: int, base: SparseEncoder) -> SparseEncoder:
    """An encoder with the tokenizer and the table of another, on a narrow model of so many layers."""
    config = BertConfig(
        vocab_size=len(base.query_weights),
        hidden_size=16,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=16,
    )
    with tempfile.TemporaryDirectory() as folder:
        BertForMaskedLM(config).save_pretrained(folder)
        base.tokenizer.save_pretrained(folder)
        return SparseEncoder.from_mlm(folder, idf=base.query_weights, device="cpu")


def main() -> None:
    """Time all sides of a claim in turn."""
    threads = parse_threads(__doc__)
    os.environ["TOKENIZERS_PARALLELISM"] = "false" if threads == 1 else "true"
    queries = [query for query, _ in real_texts()][:1000]
    few = queries[:: len(queries) // SINGLE][:SINGLE]
    model = real_encoder()
    stock = stock_twin(model)
    check(model, stock, queries)

    found = medians(
        {
            "ours": lambda: one_by_one(model, few),
            "scipy": lambda: one_by_one(model, few, convert_to_scipy=True),
            "stock": lambda: one_by_one(stock, few),
        },
        REPEATS,
    )
    single = {name: seconds / len(few) * 1e6 for name, seconds in found.items()}

    seen, new = queries[::2], queries[1::2]
    fresh = [QueryLookup(model.tokenizer, model.tokenizer.model_max_length) for _ in range(REPEATS + 1)]
    for one in fresh:
        one(seen, model.query_weights)
    used = model._query_encoder

    def first_time() -> None:
        model._query_encoder = fresh.pop()
        one_by_one(model, new)
        model._query_encoder = used

    found = medians(
        {
            "ours": lambda: model.encode_query(queries),
            "scipy": lambda: model.encode_query(queries, convert_to_scipy=True),
            "stock": lambda: stock.encode_query(queries),
            "first time": first_time,
        },
        REPEATS,
    )
    batch = {name: seconds / len(queries) * 1e6 for name, seconds in found.items()}
    unseen = found["first time"] / len(new) * 1e6

    # Without stock, which takes a hundred times as long and leaves the caches of the processor to neither.
    found = medians(
        {
            "ours": lambda: one_by_one(model, few),
            "scipy": lambda: one_by_one(model, few, convert_to_scipy=True),
            "bm25s": lambda: [bm25s.tokenize(query, show_progress=False) for query in few],
            "ours, batch": lambda: model.encode_query(queries),
            "bm25s, batch": lambda: bm25s.tokenize(queries, show_progress=False),
        },
        4 * REPEATS,
    )
    words = {
        name: seconds / len(queries if "batch" in name else few) * 1e6 for name, seconds in found.items()
    }

    kinds = {layers: layered(layers, model) for layers in LAYERS}
    twins = {layers: stock_twin(one) for layers, one in kinds.items()}
    for layers in LAYERS:
        check(kinds[layers], twins[layers], queries[:100])
    found = medians(
        {
            **{f"ours {layers}": partial(one_by_one, one, few) for layers, one in kinds.items()},
            **{f"stock {layers}": partial(one_by_one, one, few) for layers, one in twins.items()},
        },
        REPEATS,
    )
    deep = {name: seconds / len(few) * 1e6 for name, seconds in found.items()}

    def say(claim: str, ours: float, theirs: float, goal: float | None) -> None:
        report(claim, ours=ours, stock=theirs, unit="us a query", threads=threads, goal=goal)

    say("one query", single["ours"], single["stock"], 25)
    say("one query, as scipy", single["scipy"], single["stock"], 25)
    say("one query, seen for the first time", unseen, single["stock"], None)
    say("queries in a batch", batch["ours"], batch["stock"], 20)
    say("queries in a batch, as scipy", batch["scipy"], batch["stock"], 20)
    say("one query, 24 layers", deep["ours 24"], deep["stock 24"], 25)
    say("one query, 24 layers against our 2", deep["ours 24"], deep["ours 2"], 1)
    say("one query against bm25s.tokenize", words["ours"], words["bm25s"], 1 / 1.1)
    say("one query, as scipy, against bm25s.tokenize", words["scipy"], words["bm25s"], 1 / 1.1)
    say("queries in a batch against bm25s.tokenize", words["ours, batch"], words["bm25s, batch"], 1 / 1.1)


if __name__ == "__main__":
    main()
