"""Reading relevance judgements: TREC's four columns, BEIR's three, and records of the same."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from st_l0.data.lines import read_lines, read_parquet, read_records
from st_l0.data.names import normal
from st_l0.data.records import as_identifier
from st_l0.errors import InputError

_HEADER = ("query-id", "corpus-id", "score")
# What people call the columns, in small letters and without signs.
_CALLED = {
    name: part
    for part, names in {
        "query": "queryid qid query topic topicid questionid",
        "document": "corpusid docid documentid pid passageid did docno document passage doc",
        "score": "score rel relevance label judgment judgement grade rating relevant",
    }.items()
    for name in names.split()
}
_NAME = re.compile(r"[A-Za-z][A-Za-z _.-]*")  # what no id (which has digits) and no score looks like
_WHOLE = re.compile(r"([+-]?[0-9]{1,9})(\.0*)?")
_NUMBER = re.compile(r"[0-9]+(\.[0-9]+)?")
_ITERATION = re.compile(r"[qQ]?0")
_CURE = f"give {', '.join(_HEADER)}, or TREC's query 0 document score"


class _Judgement(NamedTuple):
    query: Any
    document: Any
    score: Any


class _Columns(NamedTuple):
    """The places of the parts of a judgement; without a score, it is 1."""

    query: int
    document: int
    score: int | None

    def of(self, row: Sequence[Any]) -> _Judgement:
        return _Judgement(row[self.query], row[self.document], 1 if self.score is None else row[self.score])


def read_qrels(path: Path, queries: Mapping[str, str], queries_name: str) -> dict[str, dict[str, int]]:
    """Read a file of judgements; compressed if its name ends in ``.gz``.

    - ``.jsonl``, ``.json``, ``.parquet``: ``query-id``, ``corpus-id`` and ``score``, under any of the names
      in use; without scores, each row is relevant (1).
    - Any other name: a line ``query-id``, ``corpus-id``, ``score``, or TREC's ``query-id``, ``0``,
      ``corpus-id``, ``score``, between tabs, else white space, in ``.csv`` commas or semicolons. Names of
      columns may come first, and say their order where they are known.

    Args:
        path: The file.
        queries: The queries, by id.
        queries_name: The file that they are from.

    Returns:
        Query id → document id → graded relevance, a whole number such as ``1`` or ``1.0``.

    Raises:
        InputError: the file cannot be read or is empty, columns are missing or may mean several things, a
            judgement is not a whole number, contradicts another or is about an unknown query.
    """
    name = path.name.lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        found = _from_records(path, read_records(path))
    elif name.endswith(".parquet"):
        found = _from_records(path, read_parquet(path))
    else:
        found = _from_lines(path, queries, commas=name.endswith(".csv"))
    qrels: dict[str, dict[str, int]] = {}
    for number, judgement in found:
        query = _identifier(path, number, "query", judgement.query)
        document = _identifier(path, number, "document", judgement.document)
        score = _score(path, number, judgement.score)
        if query not in queries:
            raise InputError(
                f"{path}:{number}: query {query!r:.40} is not in {queries_name}; "
                "add it or drop its judgements"
            )
        if qrels.setdefault(query, {}).setdefault(document, score) != score:
            raise InputError(
                f"{path}:{number}: query {query!r:.40} and document {document!r:.40} were judged "
                "otherwise above; keep one judgement"
            )
    if not qrels:
        raise InputError(f"{path}: no judgements; give at least one")
    return qrels


def _from_records(
    path: Path, records: Iterable[tuple[int, dict[str, Any]]]
) -> Iterator[tuple[int, _Judgement]]:
    for number, record in records:
        columns = _columns(f"{path}:{number}", list(record))
        if columns is None:
            raise InputError(f"{path}:{number}: has {', '.join(record) or 'nothing':.80}; {_CURE}")
        yield number, columns.of(list(record.values()))


def _from_lines(path: Path, queries: Mapping[str, str], *, commas: bool) -> Iterator[tuple[int, _Judgement]]:
    header: Sequence[str] = ()
    named: _Columns | None = None
    width = 0
    for number, fields in _rows(path, commas=commas):
        if not width and not header and _is_header(fields, queries):
            header, named = fields, _columns(f"{path}:{number}", fields)
            continue
        if width not in (0, len(fields)):
            raise InputError(f"{path}:{number}: {len(fields)} fields, {width} above; {_CURE}")
        width = len(fields)
        if named is not None and width == len(header):
            yield number, named.of(fields)
        elif width == 3:
            yield number, _Columns(0, 1, 2).of(fields)
        elif width == 4:
            _check_trec(path, number, fields)
            yield number, _Columns(0, 2, 3).of(fields)
        else:
            raise InputError(f"{path}:{number}: {width} fields; {_CURE}")


def _rows(path: Path, *, commas: bool) -> Iterator[tuple[int, list[str]]]:
    for number, line in read_lines(path):
        if not line.strip():
            continue
        if commas:  # or semicolons, where a comma is the decimal point
            separator = max(",;", key=line.count)
            fields = next(csv.reader([line], delimiter=separator))
        else:
            fields = line.split("\t") if "\t" in line else line.split()
        yield number, [field.strip() for field in fields]


def _is_header(fields: Sequence[str], queries: Mapping[str, str]) -> bool:
    """Whether the first line has names of columns."""
    known = {_CALLED.get(normal(field)) for field in fields}
    if {"query", "document"} <= known:
        return True
    return len(fields) in (3, 4) and fields[0] not in queries and all(map(_NAME.fullmatch, fields))


def _columns(place: str, names: Sequence[str]) -> _Columns | None:
    """Where the parts of a judgement stand, ``None`` if the names do not say it."""
    found: dict[str, int] = {}
    for position, name in enumerate(names):
        role = _CALLED.get(normal(name))
        if role in found:
            raise InputError(f"{place}: {names[found[role]]} and {name} may both be the {role}; {_CURE}")
        if role is not None:
            found[role] = position
    if "query" not in found or "document" not in found or ("score" not in found and len(names) > 2):
        return None
    return _Columns(found["query"], found["document"], found.get("score"))


def _check_trec(path: Path, number: int, fields: Sequence[str]) -> None:
    """Refuse four columns that may stand in another order than TREC's."""
    iteration, document = fields[1], fields[2]
    if _ITERATION.fullmatch(iteration) or (_NUMBER.fullmatch(iteration) and not _NUMBER.fullmatch(document)):
        return
    raise InputError(
        f"{path}:{number}: four fields, of which the second is {iteration!r:.40} and not TREC's 0, so it may "
        f"be the document; {_CURE}"
    )


def _identifier(path: Path, number: int, what: str, value: Any) -> str:
    identifier = as_identifier(value)
    if identifier is None:
        raise InputError(f"{path}:{number}: the {what} is {value!r:.40}; give a string or an integer")
    return identifier


def _score(path: Path, number: int, value: Any) -> int:
    found = _WHOLE.fullmatch(str(int(value) if isinstance(value, bool) else value).strip())
    if found is None:
        raise InputError(f"{path}:{number}: judgement {value!r:.40} is not a whole number; give 0, 1, 2, ...")
    return int(found[1])
