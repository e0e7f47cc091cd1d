"""Queries and the documents known to answer them: from judgements, or from pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from st_l0.data.beir import read_collection
from st_l0.data.columns import Columns
from st_l0.data.parts import is_folder, located
from st_l0.data.rows import read_raw_rows
from st_l0.errors import InputError


class Positives(NamedTuple):
    """What `read_positives` read.

    Attributes:
        corpus: Document id → text.
        queries: Query id → text.
        positives: Query id → ids of documents that answer it, at least one.
        missing: Relevant documents that are left out, as the corpus does not have them.
        judged: Whether they are judgements of a collection, which has ids of its own.
        titles: Document id → title, of those that have one.
    """

    corpus: dict[str, str]
    queries: dict[str, str]
    positives: dict[str, list[str]]
    missing: int
    judged: bool
    titles: Mapping[str, str]


def read_positives(path: str | Path, split: str, columns: Columns | None = None) -> Positives:
    """Read what answers which query.

    Args:
        path: A collection, see `read_collection`: judgements above 0 make a positive. Or a file of training
            rows with a query and a positive, see `read_rows`, whose other documents are left out: equal texts
            are one document, ``d0``, ``d1``, ..., or one query, ``q0``, ``q1``, ...
        split: Which judgements to read; only for a collection.
        columns: Names of the keys of rows, see `read_rows`.

    Raises:
        InputError: the source cannot be read, or has no positives.
    """
    place = located(Path(path))
    return _from_judgements(place, split) if is_folder(place) else _from_pairs(place, columns)


def _from_judgements(folder: Path, split: str) -> Positives:
    collection = read_collection(folder, split)
    relevant = [(query, id) for query, judged in collection.qrels.items() for id in judged if judged[id] > 0]
    positives: dict[str, list[str]] = {}
    for query, document in relevant:
        if document in collection.corpus:
            positives.setdefault(query, []).append(document)
    missing = len(relevant) - sum(map(len, positives.values()))
    if not positives:
        raise InputError(f"{folder}: split {split} judges no document of the corpus as relevant")
    return Positives(collection.corpus, collection.queries, positives, missing, True, collection.titles)


def _from_pairs(path: Path, columns: Columns | None) -> Positives:
    documents: dict[str, str] = {}
    queries: dict[str, str] = {}
    positives: dict[str, list[str]] = {}
    for row in read_raw_rows(path, by_id=False, columns=columns):
        if not row.has_positive:
            raise InputError(f"{row.place}: names no positive; give one")
        query = queries.setdefault(row.query, f"q{len(queries)}")
        document = documents.setdefault(row.documents[0], f"d{len(documents)}")
        if document not in positives.setdefault(query, []):
            positives[query].append(document)
    if not positives:
        raise InputError(f"{path}: no pairs; give at least one row")
    corpus, texts = ({id: text for text, id in one.items()} for one in (documents, queries))
    return Positives(corpus, texts, positives, 0, False, {})
