"""Benchmarks by name: which of their tasks a retriever can be measured on, and what was published of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from st_l0.errors import InputError, require

BEIR_13 = (
    "ArguAna", "ClimateFEVER", "DBPedia", "FEVER", "FiQA2018", "HotpotQA", "NFCorpus", "NQ", "QuoraRetrieval",
    "SCIDOCS", "SciFact", "TRECCOVID", "Touche2020",
)  # fmt: skip
"""The tasks that papers on sparse retrieval average: BEIR's public ones without MS MARCO and CQADupstack.

mteb's "BEIR" has these two besides; ``Touche2020`` is the one of BEIR, not its later version.
"""


class Published(NamedTuple):
    """A row of a paper: the mean nDCG@10 over `BEIR_13`, times 100; measured by its authors, not here."""

    system: str
    ndcg: float
    source: str
    flops: float | None = None


PUBLISHED = (
    Published("SPLADE-doc-distill", 45.02, "arXiv 2109.10086"),
    Published("IDF-SPLADE-doc-distill", 49.52, "arXiv 2411.04403"),
    Published("ℓ0 Mask", 50.43, "arXiv 2504.14839"),
    Published("ℓ0 Mask + ℓ0 Activation", 50.28, "arXiv 2504.14839"),
    Published("OpenSearch doc-v3-distill", 51.7, "published checkpoint", 1.8),
    Published("OpenSearch doc-v3-gte", 54.6, "published checkpoint", 1.7),
)

_TYPES = ("Retrieval", "Reranking", "InstructionRetrieval", "InstructionReranking")


class Selection(NamedTuple):
    """What to measure.

    Attributes:
        name: The benchmark's, or None for tasks alone.
        tasks: Tasks of mteb, retrieval or reranking of texts.
        left_out: Names of the other tasks of the benchmark.
    """

    name: str | None
    tasks: tuple[Any, ...]
    left_out: tuple[str, ...]


def select_tasks(benchmark: str | None, names: Sequence[str] = ()) -> Selection:
    """Find a benchmark, or some of its tasks, or tasks alone.

    Args:
        benchmark: ``BEIR-13`` (see `BEIR_13`), or what `mteb.get_benchmark` takes, such as ``BEIR``,
            ``NanoBEIR`` or ``MTEB(eng, v2)``; None for the tasks of ``names`` alone.
        names: Tasks, by the names that mteb has for them; empty for all of the benchmark.

    Raises:
        InputError: There is no such benchmark or task (the message names the nearest), or none of the tasks
            is retrieval or reranking of texts.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    if benchmark is None:
        tasks = [_task(name) for name in dict.fromkeys(names)]
    else:
        benchmark, tasks = _benchmark(benchmark)
        if names:
            of_name = {task.metadata.name: task for task in tasks}
            tasks = [of_name[_known(name, of_name, f"task of {benchmark}")] for name in dict.fromkeys(names)]
    fit = tuple(task for task in tasks if _is_retrieval(task))
    left_out = tuple(task.metadata.name for task in tasks if not _is_retrieval(task))
    if not fit:
        raise InputError(
            f"{', '.join(left_out) or 'nothing'}: neither retrieval nor reranking of texts, so no search "
            "can be measured on it; give other --tasks"
        )
    return Selection(benchmark, fit, left_out)


def _benchmark(name: str) -> tuple[str, list[Any]]:
    mteb = require("mteb", "eval")
    if name.upper() == "BEIR-13":
        return "BEIR-13", list(mteb.get_tasks(tasks=list(BEIR_13)))
    try:
        found = mteb.get_benchmark(name)
    except KeyError:
        every = mteb.get_benchmarks()
        aliases = (alias for one in every for alias in one.aliases or ())
        found = mteb.get_benchmark(
            _known(name, ["BEIR-13", *(one.name for one in every), *aliases], "benchmark")
        )
    return found.name, list(found.tasks)


def _task(name: str) -> Any:
    mteb = require("mteb", "eval")
    try:
        return mteb.get_task(name)
    except KeyError:
        every = (task.metadata.name for task in require("mteb.get_tasks", "eval").TASK_LIST)
        return mteb.get_task(_known(name, list(every), "task"))


def _known(name: str, names: Iterable[str], what: str) -> str:
    """The one of some names that a name is, in whatever case.

    Raises:
        InputError: It is none; the message gives the nearest.
    """
    of_lower = {one.lower(): one for one in names}
    if name.lower() in of_lower:
        return of_lower[name.lower()]
    near = difflib.get_close_matches(name.lower(), of_lower, n=3, cutoff=0.4)
    advice = f"the nearest: {', '.join(of_lower[one] for one in near)}" if near else "mteb has none like it"
    raise InputError(f"{name!r:.60} is no {what} that mteb knows; {advice}")


def _is_retrieval(task: Any) -> bool:
    abstasks = require("mteb.abstasks", "eval")
    parts = parts_of(task)
    return (
        task.metadata.type in _TYPES
        and all(isinstance(part, abstasks.AbsTaskRetrieval) for part in parts)
        and all(set(part.metadata.modalities) <= {"text"} for part in parts)
    )


def parts_of(task: Any) -> tuple[Any, ...]:
    """The tasks that a task is the mean of, as CQADupstackRetrieval is of twelve; mostly itself alone."""
    return tuple(getattr(task.metadata, "tasks", None) or (task,))
