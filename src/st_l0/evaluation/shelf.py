"""Where results of benchmarks are kept: mteb's own files, and beside them what mteb does not keep."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from st_l0.errors import require
from st_l0.evaluation.metrics import Run
from st_l0.evaluation.trec import read_run, write_run
from st_l0.utils.files import replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.reading import read_json

INDEX, MTEB = "index", "mteb"  # what measured: an index, or the loader and the search of mteb


class Part(NamedTuple):
    """A split and a subset of a task, as one system has it.

    Attributes:
        documents: Their number.
        queries: Their number, judged ones only.
        own: How many of them have the id of a document.
        without_hits: For how many of them nothing was found.
        costs: What `st_l0.evaluation.costs.matching_costs` gives, where vectors were seen.
        per_query: Query id → measures, see `st_l0.evaluation.metrics.quality_per_query`.
    """

    documents: int
    queries: int
    own: int
    without_hits: int
    costs: dict[str, float]
    per_query: dict[str, dict[str, float]]


class Shelf:
    """A folder of results: ``results`` (and ``remote``) as mteb has them, ``records`` of our own.

    A record, of a task and a revision of a model, says what measured it, and holds costs and measures of each
    query; beside it lies the run, compressed.

    Args:
        folder: The folder; None for what mteb takes, ``$MTEB_CACHE`` or ``~/.cache/mteb``.
        apart: Whether it is the one within another, see `apart`.
    """

    def __init__(self, folder: str | Path | None, *, apart: bool = False) -> None:
        self._is_apart = apart
        self.cache = require("mteb", "eval").ResultCache(None if folder is None else local_path(folder))
        self.folder: Path = self.cache.cache_path

    def apart(self) -> Shelf:
        """The shelf within this one for what is never submitted, which mteb does not look into."""
        return self if self._is_apart else Shelf(self.folder / "st_l0", apart=True)

    def results_of(self, meta: Any, revision: str | None = None) -> Path:
        """Folder of mteb's results of a model."""
        return self.folder / "results" / str(meta.model_name_as_path()) / (revision or str(meta.revision))

    def records_of(self, meta: Any, revision: str | None = None) -> Path:
        """Folder of the records of a model."""
        return self.folder / "records" / str(meta.model_name_as_path()) / (revision or str(meta.revision))

    def result(self, task: Any, meta: Any) -> Any:
        """The ``TaskResult`` of a task if it is whole, else None; see `begun`."""
        found = self.begun(task, meta)
        return None if found is None or found.get_missing_evaluations(task) else found

    def begun(self, task: Any, meta: Any) -> Any:
        """The ``TaskResult`` of a task, which may lack subsets, if it was measured here and on these data.

        mteb itself also takes what others submitted, from the clone in ``remote``, and results of other data.
        """
        if not self.cache.get_task_result_path(task.metadata.name, meta).exists():
            return None
        found = self.cache.load_task_result(task.metadata.name, meta)
        return found if found.dataset_revision == task.metadata.revision else None

    def measured_by(self, task: str, meta: Any) -> str:
        """`INDEX` or `MTEB`, which also measured what has no record."""
        path = self._record(task, meta)
        return str(read_json(path, _MEND).get("measured_by", MTEB)) if path.exists() else MTEB

    def parts(self, task: str, meta: Any) -> dict[str, Part]:
        """What was recorded of a task, by ``split/subset``."""
        path = self._record(task, meta)
        found = read_json(path, _MEND).get("parts", {}) if path.exists() else {}
        return {key: Part(**part) for key, part in found.items()}

    def run(self, task: str, meta: Any, part: str) -> dict[str, dict[str, float]]:
        """The run of a part, empty where none was kept."""
        path = self._run(task, meta, part)
        return read_run(path) if path.exists() else {}

    def note(self, task: str, meta: Any, by: str, parts: Mapping[str, tuple[Part, Run]]) -> None:
        """Record parts of a task, and what measured it; parts that are there already stay."""
        known = {key: part._asdict() for key, part in self.parts(task, meta).items()}
        for key, (part, run) in parts.items():
            known[key] = part._asdict()
            write_run(run, self._run(task, meta, key), "bm25" if meta.name.endswith("/bm25") else "model")
        with replace_file(self._record(task, meta)) as new:
            new.write_text(
                json.dumps({"measured_by": by, "parts": known}, ensure_ascii=False), encoding="utf-8"
            )

    def _record(self, task: str, meta: Any) -> Path:
        return self.records_of(meta) / f"{task}.json"

    def _run(self, task: str, meta: Any, part: str) -> Path:
        return self.records_of(meta) / f"{task}.{part.replace('/', '.')}.run.gz"


_MEND = "remove it, and its task is measured once more where it is needed"
