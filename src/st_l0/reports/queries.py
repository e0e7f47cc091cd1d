"""The queries that a system wins and loses most against another one, and why."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from st_l0.data import Collection, read_collection
from st_l0.errors import InputError
from st_l0.evaluation.metrics import rank
from st_l0.evaluation.trec import read_run
from st_l0.reports.systems import Measured, System

logger = logging.getLogger(__name__)

_TOKENS = 8
_LENGTH = 240  # characters of a document that are shown


@dataclass(frozen=True)
class Document:
    """A document of a query, and what its tokens add to its score.

    Attributes:
        id: Its id.
        role: What it is for the query.
        text: Its beginning.
        ranks: Rank in the system's and in the other's run; ``None`` where it was not found.
        tokens: Token and what it adds, largest first; empty where there is no model to ask.
    """

    id: str
    role: str
    text: str
    ranks: tuple[int | None, int | None]
    tokens: list[tuple[str, float]]


@dataclass(frozen=True)
class Query:
    """A query that two systems answer differently.

    Attributes:
        id: Its id.
        text: Its text; empty where the collection is not there.
        value: Quality of the system.
        other: Quality of the other one.
        documents: The best relevant document, and what the system ranks above it.
    """

    id: str
    text: str
    value: float
    other: float
    documents: list[Document]


@dataclass(frozen=True)
class Comparison:
    """What a system wins and loses in a collection, most first."""

    collection: str
    won: list[Query]
    lost: list[Query]


def compare(
    system: System, other: System, collections: Sequence[str], metric: str, number: int
) -> list[Comparison]:
    """The queries of each collection that differ most, up to ``number`` won and as many lost."""
    found = []
    for collection in collections:
        ours, theirs = system.per_query(metric, collection), other.per_query(metric, collection)
        differences = {query: ours[query] - theirs[query] for query in ours if query in theirs}
        order = sorted(differences, key=lambda query: (-differences[query], query))
        won = [query for query in order if differences[query] > 0][:number]
        lost = [query for query in reversed(order) if differences[query] < 0][:number]
        if won or lost:
            look = _Look(system, other, collection)
            one, two = (
                [Query(id, look.query(id), ours[id], theirs[id], look.documents(id)) for id in ids]
                for ids in (won, lost)
            )
            found.append(Comparison(collection, one, two))
    return found


class _Look:
    """Texts, ranks and tokens of one collection, as far as they are there."""

    def __init__(self, system: System, other: System, collection: str) -> None:
        self._runs = [_run(one, collection) for one in (system, other)]
        self._collection = next(filter(None, (_collection(run, collection) for run in system.runs)), None)
        model = system.runs[0].model if system.key == "model" else None
        self._model = None if model is None or self._collection is None else _model(model)

    def query(self, id: str) -> str:
        return "" if self._collection is None else self._collection.queries.get(id, "")

    def documents(self, query: str) -> list[Document]:
        ours, theirs = (run.get(query, []) for run in self._runs)
        if self._collection is None:
            return []
        judged = self._collection.qrels.get(query, {})
        relevant = [id for id in ours if judged.get(id, 0) > 0]
        relevant += [id for id in theirs if judged.get(id, 0) > 0 and id not in relevant]
        first = relevant[0] if relevant else None
        above = ours[: ours.index(first)] if first in ours else ours
        wrong = next((id for id in above if judged.get(id, 0) <= 0), None)
        chosen = [] if first is None else [(first, "the best relevant one")]
        if wrong is not None:
            chosen.append((wrong, "ranked above" if first else "ranked first; no relevant one was found"))
        return [
            Document(
                id,
                role,
                self._text(id),
                tuple(run.index(id) + 1 if id in run else None for run in (ours, theirs)),  # type: ignore[arg-type]
                self._tokens(query, id),
            )
            for id, role in chosen
        ]

    def _text(self, id: str) -> str:
        text = "" if self._collection is None else self._collection.corpus.get(id, "")
        return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"

    def _tokens(self, query: str, id: str) -> list[tuple[str, float]]:
        if self._model is None or self._collection is None or id not in self._collection.corpus:
            return []
        found = self._model.explain(self.query(query), self._collection.corpus[id]).matches[:_TOKENS]
        return [(match.token, match.contribution) for match in found]


def _run(system: System, collection: str) -> dict[str, list[str]]:
    """Query → documents, best first; empty where the run was not kept."""
    file = system.runs[0].file
    beside = file.with_name(f"{file.stem}.{collection}.{system.key}.run")
    return {query: rank(scores) for query, scores in _read_run(beside).items()}


@lru_cache(maxsize=8)
def _read_run(file: Path) -> dict[str, dict[str, float]]:
    return read_run(file) if file.is_file() else {}


def _collection(run: Measured, name: str) -> Collection | None:
    named = (one for one in run.data if Path(one).resolve().name.removesuffix(".zip") == name)
    folder = next(named, None)
    return None if folder is None or not Path(folder).exists() else _read_collection(folder, run.split)


@lru_cache(maxsize=16)
def _read_collection(folder: str, split: str) -> Collection | None:
    try:
        return read_collection(folder, split)
    except InputError as error:
        logger.warning("no texts of queries: %s", error)
        return None


@lru_cache(maxsize=2)
def _model(name: str) -> Any:
    from st_l0.encoder.sparse_encoder import SparseEncoder

    try:
        return SparseEncoder.from_pretrained(name, inference_free=False)
    except InputError as error:
        logger.warning("no explanations: %s", error)
        return None
