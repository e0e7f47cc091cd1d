"""From what was measured to shards, memory, hours and cost: prints the tables of docs/scaling.md.

    python benchmarks/scaling.py [--active-dims 175] [--text-bytes 700] [--replicas 1] [prices]

Constants of OpenSearch are those of ``results/opensearch.json`` (see ``opensearch.py``); the others stand
below with their source. Everything is proportional to the number of documents, but for a fixed cost of a
query.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

RESULTS = Path(__file__).parent / "results" / "opensearch.json"
SIZES = (10_000_000, 100_000_000, 1_000_000_000)
GB = 1e9


class Constant(NamedTuple):
    """A number that the plan rests on."""

    name: str
    value: float
    unit: str
    source: str


class Plan(NamedTuple):
    """What a number of documents needs."""

    documents: int
    core_hours: float
    gpu_hours: float
    load_core_hours: float
    disk: float
    searched: float
    shards: int
    nodes: int
    processor_ms: float
    queries_per_core: float
    embedded_bytes: float
    embedded_ms: float
    once: float
    monthly: float


def constants() -> dict[str, Constant]:
    """All of them: measured ones, and what is assumed."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    sizes = {
        int(name.partition("-")[2]): found for name, found in results.items() if name.startswith("synth")
    }
    (small, few), (large, many) = sorted(sizes.items())[0], sorted(sizes.items())[-1]
    load = many["rank_features index"]
    cost = [found["exact"]["processor_ms@100"] for found in (few, many)]
    slope = max(0.0, 1e6 * (cost[1] - cost[0]) / (large - small))
    ours = f"opensearch.py, {large:,} documents"
    found = [
        Constant("encode_core", 38.6, "documents/s", "encode_document.py: 192 docstrings, one core"),
        Constant(
            "encode_gpu", 3_325, "documents/s", "a training of this size, H100: 2,350 steps of 375 in 265 s"
        ),
        Constant("embedded_bytes", 8.1, "bytes a posting", "search.py, 1,000,000 documents"),
        Constant(
            "embedded_ms", 3.8, "ms a query and million", "search.py: 19 ms at 5,000,000 documents, one core"
        ),
        Constant("bytes", load["bytes_per_posting"], "bytes a posting", f"{ours}; with the documents' JSON"),
        Constant(
            "searched", load["searched_bytes_per_posting"], "bytes a posting", f"{ours}; read by searches"
        ),
        Constant("load_ms", load["processor_ms_per_document"], "processor ms a document", ours),
        Constant(
            "query_ms",
            cost[0] - slope * small / 1e6,
            "processor ms a query",
            f"{ours}; however few documents",
        ),
        Constant(
            "query_ms_million",
            slope,
            "processor ms a query and million",
            f"{small:,} and {large:,} documents",
        ),
    ]
    return {one.name: one for one in found}


def plan(documents: int, known: dict[str, float], given: argparse.Namespace) -> Plan:
    """What some documents need on OpenSearch, and in an embedded index."""
    postings = documents * given.active_dims
    copies = 1 + given.replicas
    disk = postings * known["bytes"] + documents * given.text_bytes
    searched = postings * known["searched"]
    million = documents / 1e6
    busy = known["query_ms"] + known["query_ms_million"] * million
    # A shard is searched by one thread: as many as its share of a query fits into the time that it may take.
    by_time = math.ceil(known["query_ms_million"] * million / given.milliseconds)
    shards = max(1, by_time, math.ceil(disk / (given.shard_gigabytes * GB)))
    cores = given.queries * busy / 1000
    nodes = max(
        copies,
        math.ceil(copies * searched / (given.node_cache_gigabytes * GB)),
        math.ceil(cores / given.node_cores),
        math.ceil(copies * disk / (given.node_disk_gigabytes * GB)),
    )
    core_hours = documents / known["encode_core"] / 3600
    gpu_hours = documents / known["encode_gpu"] / 3600
    load = copies * documents * known["load_ms"] / 3.6e6
    once = min(core_hours * given.core_hour, gpu_hours * given.gpu_hour) + load * given.core_hour
    monthly = 730 * nodes * given.node_hour + copies * disk / GB * given.gigabyte_month
    return Plan(
        documents, core_hours, gpu_hours, load, copies * disk, copies * searched, shards, nodes, busy,
        1000 / busy, postings * known["embedded_bytes"], known["embedded_ms"] * million, once, monthly,
    )  # fmt: skip


def number(value: float) -> str:
    """Two or three digits, with thousands set apart."""
    if value >= 100:
        digits = 3 - len(str(int(value)))
        return f"{round(value, digits):,.0f}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes, as people say them."""
    return f"{number(value / 1e12)} TB" if value >= 1e12 else f"{number(value / GB)} GB"


def table(plans: list[Plan]) -> list[str]:
    """The plans, one a column."""
    rows: dict[str, list[Any]] = {
        "encode on cores": [f"{number(one.core_hours)} core-hours" for one in plans],
        "… or on GPUs": [f"{number(one.gpu_hours)} GPU-hours" for one in plans],
        "load into OpenSearch": [f"{number(one.load_core_hours)} core-hours" for one in plans],
        "disk, all copies": [size(one.disk) for one in plans],
        "of it read by searches": [size(one.searched) for one in plans],
        "shards": [f"{one.shards:,}" for one in plans],
        "nodes": [f"{one.nodes:,}" for one in plans],
        "processor time of a query": [f"{number(one.processor_ms)} ms" for one in plans],
        "queries/s a core": [number(one.queries_per_core) for one in plans],
        "encoding and loading, once": [f"${number(one.once)}" for one in plans],
        "nodes and disk, a month": [f"${number(one.monthly)}" for one in plans],
        "embedded index: disk or memory": [size(one.embedded_bytes) for one in plans],
        "… a query on one core": [f"{number(one.embedded_ms)} ms" for one in plans],
    }
    heads = [f"{one.documents / 1e6:,.0f} M" for one in plans]
    lines = ["| documents | " + " | ".join(heads) + " |", "|---" * (len(plans) + 1) + "|"]
    return lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]


def losses() -> list[str]:
    """What the approximate searches found of the exact one's hits."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    lines = [
        "| documents | search | recall@10 | recall@100 | ms, top 10 | processor ms |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in results.items():
        if name == "machine":
            continue
        rows = {label: row for label, row in found.items() if isinstance(row, dict) and "recall@10" in row}
        lines += [
            f"| {name} | {label} | {row['recall@10']:.3f} | {row['recall@100']:.3f} | "
            f"{number(row['ms@10'])} | {number(row['processor_ms@100'])} |"
            for label, row in rows.items()
        ]
    return lines


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """What is assumed, each of which is an option."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default, what in (
        ("active-dims", 175, "postings of a document"),
        ("text-bytes", 700, "of a document's text, as stored"),
        ("replicas", 1, "further copies of each shard"),
        ("queries", 50, "a second, at most"),
        ("milliseconds", 50, "that a shard may take for a query"),
        ("shard-gigabytes", 40, "of one shard"),
        ("node-cores", 16, "of a node"),
        (
            "node-cache-gigabytes",
            90,
            "of a node's memory that caches files (128 without 31 for Java, and spare)",
        ),
        ("node-disk-gigabytes", 2000, "of a node"),
        ("core-hour", 0.04, "$"),
        ("gpu-hour", 3.0, "$"),
        ("node-hour", 1.0, "$"),
        ("gigabyte-month", 0.08, "$"),
    ):
        parser.add_argument(f"--{name}", type=type(default), default=default, help=what)
    return parser.parse_args(arguments)


def main() -> None:
    """Print the tables."""
    given = parse()
    found = constants()
    print("| constant | value | unit | from |\n|---|---|---|---|")
    for one in found.values():
        print(f"| {one.name} | {number(one.value)} | {one.unit} | {one.source} |")
    known = {one.name: one.value for one in found.values()}
    print("\n" + "\n".join(table([plan(documents, known, given) for documents in SIZES])))
    print("\n" + "\n".join(losses()))
    print(
        "\nAssumed: "
        + ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in vars(given).items())
    )


if __name__ == "__main__":
    main()
