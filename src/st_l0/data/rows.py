"""Rows of training data in every form that is in use, read strictly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from st_l0.data.arrow import is_hub_name, is_repository, is_saved, load_hub, load_saved
from st_l0.data.lines import read_parquet, read_records
from st_l0.data.texts import Texts
from st_l0.errors import InputError
from st_l0.utils.paths import local_path
from st_l0.utils.records import check_part, read_record

_TAUGHT = "teachers.json"
_LARGEST = float(np.finfo(np.float32).max)


class Row(NamedTuple):
    """A query and documents for it.

    Attributes:
        query: Text of the query.
        documents: Texts of the documents, at least one. The first is the positive where the source names one.
        scores: A score for each document, higher is better, where the source has them.
        query_id: Id of the query, where the source has it.
        document_ids: Ids of the documents, where the source has them.
    """

    query: str
    documents: tuple[str, ...]
    scores: tuple[float, ...] | None = None
    query_id: str | None = None
    document_ids: tuple[str, ...] | None = None


class RawRow(NamedTuple):
    """A row as it was read: its query and documents are texts or, by ids, still ids.

    Attributes:
        place: Where it is from, ``path:line``.
        has_positive: Whether the form names the first document as the positive.
        query: Text or id.
        documents: Texts or ids.
        scores: A score for each document.
        query_id: Id beside the text, where there is one.
        document_ids: Ids beside the texts, where there are some.
    """

    place: str
    has_positive: bool
    query: str
    documents: list[str]
    scores: list[float] | None
    query_id: str | None = None
    document_ids: list[str] | None = None


class _Form(NamedTuple):
    """Keys of a row; the first one tells the form."""

    documents: str
    has_positive: bool
    query: str = "query"
    negative: str | None = None
    negatives: str | None = None
    query_id: str | None = None
    document_ids: str | None = None


_TEXT_FORMS = (
    _Form("positive", True, negative="negative", negatives="negatives"),
    _Form("documents", False, query_id="query_id", document_ids="document_ids"),
    _Form("pos", True, negatives="negs"),
    _Form("docs", False, query_id="q_id", document_ids="d_ids"),
)
_ID_FORMS = (
    _Form("document_ids", False, query="query_id"),
    _Form("positive_id", True, query="query_id", negative="negative_id", negatives="negative_ids"),
    _Form("docs", False),
)


def read_rows(
    paths: str | Path | Sequence[str | Path], *, corpus: Texts | None = None, queries: Texts | None = None
) -> Iterator[Row]:
    """Stream rows of training data.

    A row has one of these forms; other keys are ignored, and null counts as absent:

    1. ``query``, ``positive``, optionally ``negative`` (a text) or ``negatives`` (a list), and ``scores``
       (a number for each document, the positive's first);
    2. ``query``, ``documents`` (a list, the best first unless there are scores), optionally ``scores``, and
       ``query_id`` with ``document_ids``;
    3. ``query``, ``pos``, optionally ``negs`` and ``scores``, as the reference implementation has it;
    4. ``query``, ``docs``, optionally ``scores``, likewise;
    5. form 4 with ``q_id`` and ``d_ids``.
    6. With ``corpus`` and ``queries``, ids instead of texts: ``query_id`` with ``document_ids``, or with
       ``positive_id`` and optionally ``negative_id`` or ``negative_ids``; or ``query`` with ``docs``, as in
       ``opensearch-project/msmarco-hard-negatives``. Optionally ``scores``.

    Args:
        paths: One or several of: a file ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; a folder of files
            ``part-*.jsonl[.gz]``, read by name; a folder written by ``datasets.Dataset.save_to_disk``; the
            name of a data set on the Hub, ``owner/name``, or a folder to which such a one was downloaded,
            whose split ``train`` is read.
        corpus: Documents by id; given, all rows must be of form 6.
        queries: Queries by id; goes with ``corpus``.

    Yields:
        Rows, in the order of the source. Texts that were looked up may be empty, others may not.

    Raises:
        InputError: ``corpus`` without ``queries``, or the reverse; a source cannot be read; a row has none of
            the forms or two at once, a text that is missing, empty or not a string, no document, an id that
            is not known, or scores that are not as many finite numbers as there are documents. The message
            starts with ``path:line``.
    """
    rows = read_raw_rows(paths, by_id=check_lookups(corpus, queries))
    if corpus is None or queries is None:
        return _text_rows(rows)
    return _looked_up(rows, corpus, queries)


def read_raw_rows(paths: str | Path | Sequence[str | Path], *, by_id: bool) -> Iterator[RawRow]:
    """Stream rows as `read_rows` does, but leave ids as they are.

    Args:
        paths: See `read_rows`.
        by_id: Whether the rows hold ids, form 6, or texts.

    Raises:
        InputError: See `read_rows`.
    """
    for source in [paths] if isinstance(paths, (str, Path)) else paths:
        for place, record in _records(source):
            yield _parse(place, record, by_id)


def find_rows(place: str, texts: Texts, identifiers: Sequence[str]) -> npt.NDArray[np.int32]:
    """`Texts.rows`, whose complaint then begins with ``place``."""
    try:
        return texts.rows(identifiers)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None


def check_lookups(corpus: Texts | None, queries: Texts | None) -> bool:
    """Whether rows hold ids: both lookups are given; neither: texts.

    Raises:
        InputError: one is given without the other.
    """
    if (corpus is None) != (queries is None):
        given, absent = ("queries", "corpus") if corpus is None else ("corpus", "queries")
        raise InputError(f"{given} is given without {absent}; give both for rows of ids, neither for texts")
    return corpus is not None


def _text_rows(rows: Iterator[RawRow]) -> Iterator[Row]:
    for row in rows:
        yield Row(
            row.query,
            tuple(row.documents),
            None if row.scores is None else tuple(row.scores),
            row.query_id,
            None if row.document_ids is None else tuple(row.document_ids),
        )


def _looked_up(rows: Iterator[RawRow], corpus: Texts, queries: Texts) -> Iterator[Row]:
    for row in rows:
        [query] = queries.read(find_rows(row.place, queries, [row.query]))
        documents = corpus.read(find_rows(row.place, corpus, row.documents))
        scores = None if row.scores is None else tuple(row.scores)
        yield Row(query, tuple(documents), scores, row.query, tuple(row.documents))


def _records(source: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of one source, each with its place."""
    path = local_path(source)
    files = [path]
    taught: dict[str, Any] = {}
    dataset: Any = None
    if is_hub_name(source):
        dataset = load_hub(source, split="train")
    elif path.is_dir():
        files = sorted([*path.glob("part-*.jsonl"), *path.glob("part-*.jsonl.gz")])
        if is_saved(path):
            dataset = load_saved(path)
        elif not files and is_repository(path):
            dataset = load_hub(path, split="train")
        elif (path / _TAUGHT).is_file():
            taught = _taught(path / _TAUGHT)
        elif not files:
            raise InputError(f"{path}: holds neither part-*.jsonl[.gz] nor a saved dataset")
    if dataset is not None:
        for number, record in enumerate(dataset, 1):
            yield f"{source}:{number}", record
        return
    rows = 0
    for index, file in enumerate(files):
        if taught:
            check_part(file, index, taught, "let st-l0 teach write a new folder")
        for number, record in read_parquet(file) if file.suffix == ".parquet" else read_records(file):
            rows += 1
            yield f"{file}:{number}", record
    if taught and taught["rows"] != rows:
        raise InputError(f"{path}: holds {rows} rows of {taught['rows']}: let st-l0 teach write a new folder")


def _taught(path: Path) -> dict[str, Any]:
    """What `st_l0.teachers.teach` notes at its end: the number of ``rows``, and digests of the parts."""
    record = read_record(path, ("rows",))
    if record["rows"] is None:
        raise InputError(f"{path.parent}: not all rows were scored: start st-l0 teach once more")
    return record


def _parse(place: str, record: dict[str, Any], by_id: bool) -> RawRow:
    form = _form(place, record, by_id)
    entries = [(form.query, record.get(form.query)), *_documents(place, record, form)]
    if len(entries) == 1:
        raise InputError(f"{place}: {form.documents} is empty; give at least one document")
    values = [(_identifier if by_id else _text)(place, name, value) for name, value in entries]
    if not by_id and form.documents == "docs" and all(value.isdecimal() for value in values):
        raise InputError(f"{place}: query and docs are numbers; for ids, give corpus and queries as well")
    query, *documents = values
    query_id, document_ids = _ids(place, record, form, len(documents))
    return RawRow(
        place,
        form.has_positive,
        query,
        documents,
        _scores(place, record.get("scores"), len(documents)),
        query_id,
        document_ids,
    )


def _form(place: str, record: dict[str, Any], by_id: bool) -> _Form:
    forms, others = (_ID_FORMS, _TEXT_FORMS) if by_id else (_TEXT_FORMS, _ID_FORMS)
    found = [form for form in forms if record.get(form.documents) is not None]
    if len(found) == 1:
        return found[0]
    if found:
        keys = " and ".join(form.documents for form in found)
        raise InputError(f"{place}: has {keys}, which are keys of different forms; give one of them")
    for form in others:
        if record.get(form.documents) is not None:
            advice = "leave corpus and queries out" if by_id else "give corpus and queries, to look them up"
            raise InputError(f"{place}: has {form.documents}, {'texts' if by_id else 'ids'}; {advice}")
    wanted = ", ".join(form.documents for form in forms)
    keys = ", ".join(record) or "nothing"
    raise InputError(f"{place}: has none of {wanted} (but {keys:.80}); give the documents as one of these")


def _documents(place: str, record: dict[str, Any], form: _Form) -> list[tuple[str, Any]]:
    """Name and value of each document."""
    if not form.has_positive:
        return _list(place, form.documents, record[form.documents])
    entries = [(form.documents, record[form.documents])]
    one = None if form.negative is None else record.get(form.negative)
    several = None if form.negatives is None else record.get(form.negatives)
    if one is not None and several is not None:
        raise InputError(f"{place}: has both {form.negative} and {form.negatives}; give one of them")
    if form.negative is not None and one is not None:
        entries.append((form.negative, one))
    if form.negatives is not None and several is not None:
        entries += _list(place, form.negatives, several)
    return entries


def _ids(
    place: str, record: dict[str, Any], form: _Form, documents: int
) -> tuple[str | None, list[str] | None]:
    """Ids beside texts."""
    query_id: str | None = None
    document_ids: list[str] | None = None
    if form.query_id is not None and record.get(form.query_id) is not None:
        query_id = _identifier(place, form.query_id, record[form.query_id])
    if form.document_ids is not None and record.get(form.document_ids) is not None:
        entries = _list(place, form.document_ids, record[form.document_ids])
        if len(entries) != documents:
            raise InputError(
                f"{place}: {len(entries)} {form.document_ids} for {documents} documents; give one for each"
            )
        document_ids = [_identifier(place, name, value) for name, value in entries]
    return query_id, document_ids


def _list(place: str, name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, list):
        raise InputError(f"{place}: {name} is {type(value).__name__}; give a list")
    return [(f"{name}[{index}]", entry) for index, entry in enumerate(value)]


def _text(place: str, name: str, value: Any) -> str:
    if isinstance(value, str) and value.strip():
        return value
    problem = "is missing" if value is None else "is empty" if value == "" else f"is {value!r:.40}"
    raise InputError(f"{place}: {name} {problem}; give a text")


def _identifier(place: str, name: str, value: Any) -> str:
    if isinstance(value, (str, int)) and not isinstance(value, bool) and value != "":
        return str(value)
    problem = "is missing" if value is None else "is empty" if value == "" else f"is {value!r:.40}"
    raise InputError(f"{place}: {name} {problem}; give an id, a string or an integer")


def _scores(place: str, value: Any, documents: int) -> list[float] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise InputError(f"{place}: scores is {type(value).__name__}; give a list")
    if len(value) != documents:
        raise InputError(f"{place}: {len(value)} scores for {documents} documents; give one for each")
    for index, score in enumerate(value):
        number = isinstance(score, (int, float)) and not isinstance(score, bool)
        if not number or not -_LARGEST <= score <= _LARGEST:  # NaN is within no bounds
            raise InputError(f"{place}: scores[{index}] is {score!r:.40}; give a finite number (float32)")
    return [float(score) for score in value]
