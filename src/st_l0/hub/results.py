"""Measurements for a card, from ``st-l0 evaluate`` or mteb, and as the Hub's own files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from st_l0.errors import InputError, require
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json

_MEND = "give what st-l0 evaluate --output wrote, or results of mteb"
_METRICS = {"ndcg@10": "nDCG@10", "mrr@10": "MRR@10"}
_OURS = "`st-l0 evaluate`"
_MTEB = "https://github.com/embeddings-benchmark/mteb"


def read_results(paths: Iterable[str | Path], benchmarks: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Read measurements, one entry a collection.

    Args:
        paths: What ``st-l0 evaluate --output`` wrote, or results of mteb: files, or folders that hold some.
        benchmarks: Name of a collection to ``{"dataset": …, "task": …}``: which benchmark of the Hub it is.

    Returns:
        Entries with ``collection``, ``metrics`` and ``bm25`` (names to values from 0 to 1), ``costs``
        (``flops``, ``document_active_dims``, ``query_active_dims``), ``source`` (what measured) and, where
        known, ``notes`` (sentences on how), ``dataset``, ``task``, ``split``, ``config`` and ``revision`` on
        the Hub. Numbers are Python's.

    Raises:
        InputError: A file is neither, or a number in it is none.
        MissingExtraError: There are results of mteb, and the extra ``eval`` is not installed.
    """
    found: list[dict[str, Any]] = []
    for given in map(local_path, paths):
        files = sorted(given.rglob("*.json")) if given.is_dir() else [given]
        entries = [entry for file in files for entry in _read(file, benchmarks, stray=given.is_dir())]
        if not entries:
            raise InputError(f"{given}: holds no results; {_MEND}")
        found += entries
    return found


def _read(file: Path, benchmarks: Mapping[str, Any], *, stray: bool) -> list[dict[str, Any]]:
    content = read_json(file, _MEND)
    if isinstance(content.get("collections"), dict):
        protocol = content.get("protocol", {})
        return [_ours(file, name, one, protocol, benchmarks) for name, one in content["collections"].items()]
    if {"task_name", "scores"} <= set(content):
        return _mteb(file, content)
    if stray:  # mteb keeps other files beside its results
        return []
    raise InputError(f"{file}: no results; {_MEND}")


def _ours(file: Path, name: str, report: Any, protocol: Any, benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    try:
        model, bm25 = report["model"], report.get("bm25", {})
        recalls = {key: f"R@{key[7:]}" for key in model if key.startswith("recall@")}
        names = _METRICS | recalls
        costs = ("flops", "document_active_dims", "query_active_dims")
        return {
            "collection": name,
            "metrics": {title: _number(model[key]) for key, title in names.items() if key in model},
            "bm25": {title: _number(bm25[key]) for key, title in names.items() if key in bm25},
            "costs": {key: _number(model[key]) for key in costs if key in model},
            "source": _OURS,
            "notes": _notes(protocol, report.get("bm25_variant")),
            **benchmarks.get(name, {}),
        }
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file}: {name} is no report of st-l0 evaluate ({error})") from None


def _notes(protocol: Mapping[str, str], variant: str | None) -> list[str]:
    """How the numbers came about, in sentences; of earlier versions' evaluations that is not known."""
    said = "; ".join(f"{key.replace('_', ' ')}: {value}" for key, value in protocol.items())
    return [*([f"{said[0].upper()}{said[1:]}."] if said else []), *([f"BM25: {variant}."] if variant else [])]


def _mteb(file: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    mteb = require("mteb", "eval")
    task = content["task_name"]
    try:
        metadata = mteb.get_task(task).metadata
        dataset, metric = metadata.dataset["path"], metadata.main_score
    except (KeyError, ValueError) as error:
        raise InputError(f"{file}: mteb knows no task {task!r:.40} ({error})") from None
    title = {"ndcg_at_10": "nDCG@10"}.get(metric, metric)
    try:
        return [
            {
                "collection": _subset(task, subset),
                "metrics": {title: _number(subset["main_score"])},
                "bm25": {},
                "costs": {},
                "source": f"[mteb]({_MTEB}) {content['mteb_version']}",
                "dataset": dataset,
                "task": f"{task}_{subset.get('hf_subset', 'default')}_{split}",
                "split": split,
                "config": subset.get("hf_subset", "default"),
                "revision": content.get("dataset_revision"),
            }
            for split, subsets in content["scores"].items()
            for subset in subsets
        ]
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise InputError(f"{file}: no result of mteb ({error})") from None


def _subset(task: str, result: Mapping[str, Any]) -> str:
    name = result.get("hf_subset", "default")
    return task if name == "default" else f"{task} ({name})"


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value} is no number")
    return number


def hub_results(entries: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """The Hub's files of results, ``.eval_results/<name>.yaml``, of what is a benchmark of the Hub.

    Args:
        entries: As `read_results` gives them.

    Returns:
        Path to content. The value is nDCG@10 (of mteb its main score) times 100, as mteb publishes it.

    Raises:
        InputError: What was written is not what `huggingface_hub` reads.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml, parse_eval_result_entries

    by_dataset: dict[str, list[Any]] = {}
    for one in entries:
        if not one.get("dataset"):
            continue
        source = {"source_url": _MTEB, "source_name": "mteb"} if _MTEB in one["source"] else {}
        by_dataset.setdefault(one["dataset"], []).append(
            EvalResultEntry(
                dataset_id=one["dataset"],
                task_id=one.get("task") or one["collection"],
                value=round(100 * float(next(iter(one["metrics"].values()))), 5),
                dataset_revision=one.get("revision"),
                notes=one["source"].replace("`", "").partition("(http")[0],
                **source,
            )
        )
    files = {}
    for dataset, results in by_dataset.items():
        text = yaml.safe_dump(eval_result_entries_to_yaml(results), sort_keys=False)
        if parse_eval_result_entries(yaml.safe_load(text)) != results:
            raise InputError(f".eval_results of {dataset} cannot be read back: change its names")
        files[f".eval_results/{dataset.replace('/', '__')}.yaml"] = text
    return files
