"""What the benchmarks share: interleaved medians, one line of result, a real model and its stock twin."""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import sentence_transformers
import torch

from st_l0 import SparseEncoder
from st_l0.quickstart.small_data import prepare_small


def parse_threads(description: str | None) -> int:
    """Read ``--threads`` from the command line, and let torch use so many."""
    parser = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    threads: int = parser.parse_args().threads
    torch.set_num_threads(threads)
    return threads


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each side. They take turns, so that what disturbs one disturbs the others.

    Each side runs once before, unmeasured.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, run in sides.items():
            start = time.perf_counter()
            run()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def report(claim: str, *, ours: float, stock: float, unit: str, threads: int, goal: float | None) -> None:
    """Print one line for people and one for machines; ``ours`` and ``stock`` are costs, less is better."""
    ratio = stock / ours
    aim = "" if goal is None else f" (goal {goal:g})"
    print(f"{claim}: {ours:.4g} {unit}, stock {stock:.4g} {unit}: x {ratio:.2f}{aim}")
    result = {"claim": claim, "ours": ours, "stock": stock, "ratio": ratio, "unit": unit, "threads": threads}
    print(f"RESULT {json.dumps(result)}", flush=True)


def real_texts() -> list[tuple[str, str]]:
    """About a thousand pairs of query and document: docstrings of this Python."""
    with (prepare_small() / "pairs.jsonl").open(encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    return [(row["query"], row["positive"]) for row in rows]


def real_encoder(max_seq_length: int = 256) -> SparseEncoder:
    """An encoder on all-MiniLM-L6-v2 (22 M parameters, 30,522 tokens) with a closed-form head."""
    encoder = SparseEncoder.from_pretrained(prepare_small() / "sparse", device="cpu")
    encoder.max_seq_length = max_seq_length
    return encoder


def stock_twin(encoder: SparseEncoder) -> sentence_transformers.SparseEncoder:
    """The same checkpoint in plain sentence-transformers."""
    with tempfile.TemporaryDirectory() as folder:
        encoder.save_pretrained(folder, create_model_card=False)
        return sentence_transformers.SparseEncoder(folder, device="cpu")
