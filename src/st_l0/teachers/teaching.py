"""Scoring a training set with teachers, once, into a dataset folder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from st_l0.data import read_records, write_records
from st_l0.errors import InputError
from st_l0.teachers.ensemble import EnsembleTeacher, refuse_not_finite
from st_l0.teachers.stored_vectors import VectorTeacher
from st_l0.teachers.teacher import Teacher
from st_l0.utils.files import replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.records import begin_record, check_begun, check_record
from st_l0.utils.resumable import hold_output, write_shards

if TYPE_CHECKING:
    from st_l0.data import Row

_STATE = "teachers.json"
# What each teacher makes of these tells whether a folder was begun with the same weights.
_PROBE = (
    ("what is a cat?", "A cat is a small animal with soft fur."),
    ("how far is the moon?", "The moon is 384,400 km from the earth."),
    ("how far is the moon?", "Bread is baked from flour, water and salt."),
)
_PROBE_TOLERANCE = 0.01  # other hardware and half precision round differently


def teach(
    rows: Iterable[Row],
    teacher: EnsembleTeacher,
    output: str | Path,
    *,
    by_id: bool = False,
    chunk_size: int = 1024,
    progress: bool = True,
) -> Path:
    """Score the documents of each row and write a dataset folder that `st_l0.data.read_rows` reads.

    The folder holds, for each chunk of rows in order, ``part-000000.jsonl`` and so on, with one object a row:
    ``query``, ``documents`` and ``scores``, or with ``by_id`` ``query_id``, ``document_ids`` and ``scores``,
    all scores rounded to 6 significant digits. Ids that stand beside texts are written with them. Beside them
    ``teachers.json`` says who scored; once all parts are there, its ``rows`` says how many rows they hold
    (null until then), and its ``parts`` has the SHA-256 of each.

    A run that was stopped and is started again skips the parts that are there. Of several processes (a
    process group, as under torchrun) the one of rank r scores the chunks r, r + world size, …, so each has to
    get the same rows; each returns when its own parts are written. The result is the same however often the
    run was stopped and however many processes there are.

    Args:
        rows: What to score; streamed, with one chunk in memory. Scores that they have are ignored.
        teacher: Who scores them.
        output: Folder, new, empty or of the same run.
        by_id: Whether ids take the place of texts, for rows whose texts were looked up by id.
        chunk_size: Rows scored together, which is also what a stopped run loses at most. Within a chunk an
            embedding teacher reads each distinct text once and holds its vector.
        progress: Whether to show a progress bar (on a terminal).

    Returns:
        The folder.

    Raises:
        InputError: There are no rows, the folder holds something else (other teachers, scale, chunk size or
            rows), a part has changed, another run is writing there, or a score is not finite.

    Example:
        A toy teacher, which prefers short documents:

        >>> import tempfile, torch
        >>> from st_l0.data import Row
        >>> class Short:
        ...     name, vocabulary = "short", None
        ...     def score_pairs(self, queries, documents):
        ...         return torch.tensor([-float(len(document)) for document in documents])
        >>> rows = [Row("a query", ("a", "longer"))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = teach(rows, EnsembleTeacher([Short()], scale=1.0), folder, progress=False)
        ...     print((path / "part-000000.jsonl").read_text().strip())
        {"query": "a query", "documents": ["a", "longer"], "scores": [1.0, 0.0]}
    """
    path = check_output(output) / _STATE
    if chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, not {chunk_size}")

    def finish(part: Path, chunk: list[Row]) -> None:
        _finish(part, chunk, teacher, by_id)

    with hold_output(path.parent):
        write_shards(
            path,
            _begin(path, teacher, chunk_size),
            "jsonl",
            rows,
            chunk_size,
            finish,
            unit="row",
            description="teaching",
            progress=progress,
        )
    return path.parent


def check_output(folder: str | Path) -> Path:
    """Refuse a folder that `teach` would refuse, before teachers are loaded.

    Returns:
        The folder.

    Raises:
        InputError: It holds something else than scored rows, or nothing can be written there.
    """
    folder = local_path(folder)
    check_begun(folder / _STATE)
    return folder


def _begin(path: Path, teacher: EnsembleTeacher, chunk_size: int) -> dict[str, Any]:
    """Begin a folder, or make sure that it was begun by the same run."""
    names = [one.name for one in teacher.teachers]
    settings: dict[str, Any] = {
        "teachers": names,
        "scale": teacher.scale,
        "weights": teacher.weights,
        "chunk_size": chunk_size,
    }
    state: dict[str, Any] = {**settings, "probe": [_probe(one) for one in teacher.teachers], "rows": None}
    found = begin_record(path, state, ("probe", "rows"))
    check_record(path, found, state, settings)
    for name, first, now in zip(names, found["probe"], state["probe"], strict=True):
        if not np.allclose(first, now, rtol=_PROBE_TOLERANCE, atol=_PROBE_TOLERANCE):
            raise InputError(f"{path}: begun with other weights of {name}; give a new folder")
    return found


def _probe(teacher: Teacher) -> list[float]:
    if isinstance(teacher, VectorTeacher):  # which knows none of these texts
        return _rounded(teacher.sample())
    queries, documents = zip(*_PROBE, strict=True)
    scores = teacher.score_pairs(queries, documents)
    refuse_not_finite(teacher, queries, scores)
    return _rounded(scores.tolist())


def _finish(part: Path, chunk: list[Row], teacher: EnsembleTeacher, by_id: bool) -> None:
    """Write a part, or make sure that the one that is there holds this chunk."""
    records = [_record(row, by_id) for row in chunk]
    if part.exists():
        found = [(line, {**record, "scores": None}) for line, record in read_records(part)]
        if len(found) != len(records):
            raise InputError(
                f"{part}: holds {len(found)} rows, but the input has {len(records)} there; give a new folder"
            )
        for (line, old), new in zip(found, records, strict=True):
            if old != {**new, "scores": None}:
                raise InputError(f"{part}:{line}: not the row that the input has there; give a new folder")
        return
    scores = teacher.score_lists([row.query for row in chunk], [row.documents for row in chunk])
    taught = (
        {**record, "scores": _rounded(values.tolist())}
        for record, values in zip(records, scores, strict=True)
    )
    with replace_file(part) as temporary:
        write_records(temporary, taught)


def _record(row: Row, by_id: bool) -> dict[str, Any]:
    record: dict[str, Any] = {}
    if row.query_id is not None and row.document_ids is not None:
        record = {"query_id": row.query_id, "document_ids": list(row.document_ids)}
    elif by_id:
        raise InputError(f"the row of query {row.query!r:.80} has no ids to be written by")
    return record if by_id else {**record, "query": row.query, "documents": list(row.documents)}


def _rounded(scores: Iterable[float]) -> list[float]:
    return [float(f"{score:.6g}") for score in scores]
