"""Benchmarks of mteb through an index, task by task; what was measured stays measured."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from typing_extensions import NotRequired, TypedDict

from st_l0.errors import require
from st_l0.evaluation.benchmarks import parts_of
from st_l0.evaluation.measure import SystemResults
from st_l0.evaluation.metrics import quality_per_query, rank
from st_l0.evaluation.mteb import MtebBM25
from st_l0.evaluation.shelf import INDEX, MTEB, Part, Shelf
from st_l0.evaluation.task_data import check, from_folders, load

logger = logging.getLogger(__name__)

_DEPTH = 100  # of recall, and of the runs that are kept
# Ours → mteb's.
_QUALITIES = {"ndcg@10": "ndcg_at_10", "mrr@10": "mrr_at_10", f"recall@{_DEPTH}": f"recall_at_{_DEPTH}"}


class TaskReport(TypedDict):
    """What was measured of a task: plain numbers, ready for JSON.

    ``model`` and ``bm25`` hold ``main_score`` (the measure ``metric``, as mteb has it), ``ndcg@10``,
    ``mrr@10`` and ``recall@100`` as mteb measures them, from 0 to 1, and ``model`` the costs of
    `st_l0.evaluation.costs.matching_costs`. Of a task with several splits or subsets they are the means.
    ``without_hits`` is the part of the queries for which nothing was found. ``own_documents`` says what mteb
    does with a document of the query's own id: ``"no hits"``, ``"hits"``, or ``"none"`` where there is none.
    ``measured_by`` is ``"index"``, or ``"mteb"`` where mteb's own loader and search did it.
    """

    collection: str
    metric: str
    measured_by: str
    documents: NotRequired[int]
    queries: NotRequired[int]
    own_documents: str
    bm25: NotRequired[dict[str, float]]
    model: dict[str, float]


class System(NamedTuple):
    """A model of mteb, and the shelf that its results are kept on.

    Attributes:
        model: `MtebModel`, `MtebBM25`, or a model that mteb loaded.
        shelf: Where its results are.
        by: What measures, `st_l0.evaluation.shelf.INDEX` or ``MTEB``.
    """

    model: Any
    shelf: Shelf
    by: str = INDEX

    @property
    def meta(self) -> Any:
        """The ``ModelMeta`` of mteb."""
        return self.model.mteb_model_meta


def run_tasks(
    model: System,
    tasks: Sequence[Any],
    *,
    bm25: bool = True,
    data_root: str | Path | None = None,
    batch_size: int = 32,
    progress: bool = False,
    results: dict[str, dict[str, SystemResults]] | None = None,
) -> Iterator[TaskReport]:
    """Measure a model on tasks of mteb, one after the other; what its shelf has is not measured again.

    mteb reads the data, asks for documents and measures; the documents are found in an index. Where a task is
    stopped, it starts again the next time, and the ones before it do not. Whether a document of the query's
    own id is a hit is decided as mteb decides it for the task.

    Args:
        model: The model, and where its results are kept.
        tasks: Retrieval and reranking tasks; see `st_l0.evaluation.benchmarks.select_tasks`.
        bm25: Measure BM25 beside it, also once.
        data_root: A folder with a folder for each task, in place of the Hub.
        batch_size: Documents to encode at once.
        progress: Show progress bars.
        results: Receives, by task and system, the measures of each query and the 100 best documents.

    Returns:
        A report a task, as each is done.

    Raises:
        InputError: The data of a task cannot be reached, or nothing can be measured on them.
        MissingExtraError: the extra ``eval`` is not installed.
    """
    systems = {"model": model}
    if bm25:
        systems = {"bm25": System(MtebBM25(), model.shelf.apart()), **systems}
    for task in tasks:
        parts = parts_of(task)
        filed: dict[str, list[Any]] = {name: [] for name in systems}
        for part in parts:
            data = part if data_root is None else from_folders(part, data_root)
            _measure(data, systems, batch_size, progress)
            for name, system in systems.items():
                filed[name].append(system.shelf.result(data, system.meta))
            if data.data_loaded:
                data.unload_data()
        if len(parts) > 1:  # filed as mteb would file it
            for name, system in systems.items():
                system.shelf.cache.save_to_cache(task.combine_task_results(filed[name]), system.meta)
        if results is not None:
            results[task.metadata.name] = {
                name: _results(parts, system) for name, system in systems.items() if _parts(parts, system)
            }
        yield _report(task, parts, systems, filed)


def _measure(task: Any, systems: dict[str, System], batch_size: int, progress: bool) -> None:
    """Measure what is not measured yet."""
    mteb = require("mteb", "eval")
    due = {name: system for name, system in systems.items() if _is_due(task, system)}
    if due or task.data_loaded:
        load(task)
        own = check(task)
    for system in due.values():
        begun = system.by == INDEX and system.shelf.begun(task, system.meta) is not None
        searched = _Recorder(system, task, own) if system.by == INDEX else system.model
        mteb.evaluate(
            searched,
            task,
            cache=system.shelf.cache,
            co2_tracker=False,
            encode_kwargs={"batch_size": batch_size, "show_progress_bar": progress},
            show_progress_bar=False,
            overwrite_strategy="only-missing" if begun else "always",
        )
        if system.by == MTEB:
            system.shelf.note(task.metadata.name, system.meta, MTEB, {})


def _is_due(task: Any, system: System) -> bool:
    if system.shelf.result(task, system.meta) is None:
        return True
    return system.by == MTEB and system.shelf.measured_by(task.metadata.name, system.meta) != MTEB


class _Recorder:
    """mteb's ``SearchProtocol`` around a system: what it found is recorded before mteb files its result."""

    def __init__(self, system: System, task: Any, own: set[str]) -> None:
        self.mteb_model_meta = system.meta
        self._own = own
        self._system = system
        self._task = task
        self._documents = 0

    def index(self, corpus: Any, **options: Any) -> None:
        self._documents = len(corpus)
        self._system.model.index(corpus, **options)

    def search(
        self, queries: Any, *, hf_split: str, hf_subset: str, **options: Any
    ) -> dict[str, dict[str, float]]:
        found: dict[str, dict[str, float]] = self._system.model.search(
            queries, hf_split=hf_split, hf_subset=hf_subset, **options
        )
        qrels = self._task.dataset[hf_subset][hf_split]["relevant_docs"]
        drop = self._task.ignore_identical_ids
        run = {}
        for query in qrels:
            scores = {
                id: float(score) for id, score in found.get(query, {}).items() if not (drop and id == query)
            }
            run[query] = {id: scores[id] for id in rank(scores)[:_DEPTH]}
        part = Part(
            documents=self._documents,
            queries=len(run),
            own=len(self._own & run.keys()),
            without_hits=sum(not hits for hits in run.values()),
            costs=self._system.model.costs,
            per_query=quality_per_query(qrels, run, _DEPTH),
        )
        self._system.shelf.note(
            self._task.metadata.name, self._system.meta, INDEX, {f"{hf_split}/{hf_subset}": (part, run)}
        )
        return found


def _report(
    task: Any, parts: Sequence[Any], systems: dict[str, System], filed: dict[str, list[Any]]
) -> TaskReport:
    model = systems["model"]
    measured_by = {model.shelf.measured_by(part.metadata.name, model.meta) for part in parts}
    report = TaskReport(
        collection=task.metadata.name,
        metric=task.metadata.main_score,
        measured_by=MTEB if measured_by == {MTEB} else INDEX,
        own_documents="no hits" if parts[0].ignore_identical_ids else "none",
        model=_numbers(task, parts, model, "the model", filed["model"]),
    )
    if "bm25" in systems:
        numbers = _numbers(task, parts, systems["bm25"], "BM25", filed["bm25"])
        report["bm25"] = {key: numbers[key] for key in ("main_score", *_QUALITIES, "without_hits")}
    # What mteb alone has measured is not recorded; BM25 saw the same data.
    if seen := next(filter(None, (_parts(parts, system) for system in (model, *systems.values()))), None):
        report["documents"] = sum(part.documents for part in seen)
        report["queries"] = sum(part.queries for part in seen)
        if not parts[0].ignore_identical_ids and any(part.own for part in seen):
            report["own_documents"] = "hits"
    return report


def _numbers(
    task: Any, parts: Sequence[Any], system: System, what: str, filed: Sequence[Any]
) -> dict[str, float]:
    """The means over the parts of a task: qualities as mteb filed them, costs as they were recorded."""
    numbers = {"main_score": _mean([float(one.get_score()) for one in filed])}
    for ours, theirs in _QUALITIES.items():
        scores = [float(one.get_score(getter=lambda found, key=theirs: found[key])) for one in filed]
        numbers[ours] = _mean(scores)
    if recorded := _parts(parts, system):
        queries = sum(part.queries for part in recorded)
        without = sum(part.without_hits for part in recorded)
        numbers["without_hits"] = without / queries
        if without > queries / 2:
            logger.warning(
                "task %s: %s found nothing for %d of %d queries; can it split their language (%s)?",
                task.metadata.name, what, without, queries, ", ".join(parts[0].metadata.languages),
            )  # fmt: skip
        for key in recorded[0].costs:
            numbers[key] = _mean([part.costs[key] for part in recorded])
    return numbers


def _parts(parts: Sequence[Any], system: System) -> list[Part]:
    return [one for part in parts for one in system.shelf.parts(part.metadata.name, system.meta).values()]


def _results(parts: Sequence[Any], system: System) -> SystemResults:
    """Measures of each query and runs; ids begin with what they are of where a task has several parts."""
    run: dict[str, dict[str, float]] = {}
    per_query: dict[str, dict[str, float]] = {}
    several = len(_parts(parts, system)) > 1
    for part in parts:
        name = part.metadata.name
        for key, one in system.shelf.parts(name, system.meta).items():
            start = f"{name}/{key}/" if several else ""
            found = system.shelf.run(name, system.meta, key)
            run |= {f"{start}{query}": found.get(query, {}) for query in one.per_query}
            per_query |= {f"{start}{query}": measures for query, measures in one.per_query.items()}
    return SystemResults(run, per_query)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
