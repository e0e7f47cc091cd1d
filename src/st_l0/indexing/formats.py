"""How other engines want documents and queries: pure functions from a text's vector to lines.

A format has the traps of its engine behind it: what that drops, cuts, doubles or refuses, often without a
word. What is left to whoever indexes and searches stands in the guide, which is written beside the vectors.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from st_l0.errors import InputError

FIELD = "emb"  # of the vectors, in engines whose documents have fields
SCALE = 100  # usual with Anserini's impact indexes
_LONGEST_ID = 512  # bytes, in Elasticsearch


class Vector(NamedTuple):
    """The weights of a text that are not 0.

    Attributes:
        terms: What the tokens are called, escaped for JSON and without quotes; distinct.
        weights: Decimal numbers, parallel to ``terms``.
    """

    terms: list[str]
    weights: list[str]


Write = Callable[[str, str, Vector], str]


class Format(NamedTuple):
    """How an engine wants vectors.

    Attributes:
        name: What the command line calls it.
        engine: Who reads it.
        document: Id, text and vector to the line, or lines, of a document.
        query: The same for a query.
        documents: The documents' file; with ``{}`` one a shard, for engines that take files in parallel.
        queries: The queries' file.
        by_token: Terms are tokens as the vocabulary has them, if each has one, else token ids.
        scale: Weights times this are rounded to whole numbers; None keeps float32.
        drops_empty: A document without weights is not in the engine's index.
        spaceless_ids: White space in an id breaks what the engine writes.
        settings: Further files, in JSON: how the engine's index is to be made.
    """

    name: str
    engine: str
    document: Write
    query: Write
    documents: str = "documents.jsonl"
    queries: str = "queries.jsonl"
    by_token: bool = False
    scale: int | None = None
    drops_empty: bool = False
    spaceless_ids: bool = False
    settings: Mapping[str, Any] = {}


def point_id(document: str) -> str:
    """The id of a document's point in Qdrant, which takes whole numbers and UUIDs only.

    It depends on the document's own id alone, so that a document that is sent again takes its own place.

    Example:
        >>> point_id("d1")
        'cbca1785-765f-58e2-88eb-d1725e16827a'
    """
    return str(uuid.uuid5(uuid.NAMESPACE_OID, document))


def _object(vector: Vector) -> str:
    pairs = zip(vector.terms, vector.weights, strict=True)
    return "{" + ",".join([f'"{term}":{weight}' for term, weight in pairs]) + "}"


def _arrays(vector: Vector) -> str:
    return f'{{"indices":[{",".join(vector.terms)}],"values":[{",".join(vector.weights)}]}}'


def _with_text(key: str) -> Write:
    """Write a text as JSON, under ``key``, beside its vector as an object."""

    def write(id: str, text: str, vector: Vector) -> str:
        return f'{{"id":{json.dumps(id)},"{key}":{json.dumps(text)},"vector":{_object(vector)}}}'

    return write


def _anserini_query(id: str, text: str, vector: Vector) -> str:
    if {"\t", "\n", "\r"} & set(id):
        raise InputError(
            f"query id {id!r:.60} holds a tab or a line break, which ends ids in Anserini's topics"
        )
    terms = [f"{term} " * int(weight) for term, weight in zip(vector.terms, vector.weights, strict=True)]
    return f"{id}\t{''.join(terms).rstrip()}"


def _qdrant_point(id: str, text: str, vector: Vector) -> str:
    vectors = f'{{"{FIELD}":{_arrays(vector)}}}' if vector.terms else "{}"
    payload = json.dumps({"id": id, "text": text})
    return f'{{"id":"{point_id(id)}","vector":{vectors},"payload":{payload}}}'


def _qdrant_query(id: str, text: str, vector: Vector) -> str:
    return f'{{"id":{json.dumps(id)},"query":{_arrays(vector)},"using":"{FIELD}"}}'


def _elasticsearch_document(id: str, text: str, vector: Vector) -> str:
    if not 0 < len(id.encode()) <= _LONGEST_ID:
        raise InputError(
            f"id {id!r:.40} has {len(id.encode())} bytes; Elasticsearch takes 1 to {_LONGEST_ID}"
        )
    weights = f',"{FIELD}":{_object(vector)}' if vector.terms else ""
    return f'{{"index":{{"_id":{json.dumps(id)}}}}}\n{{"text":{json.dumps(text)}{weights}}}'


def _elasticsearch_query(id: str, text: str, vector: Vector) -> str:
    # Without "prune" 9.x drops the lighter tokens of a query, by bounds that do not know these weights.
    query = f'{{"sparse_vector":{{"field":"{FIELD}","prune":false,"query_vector":{_object(vector)}}}}}'
    return f'{{"id":{json.dumps(id)},"query":{query}}}'


FORMATS = {
    one.name: one
    for one in (
        Format("jsonl", "any program", _with_text("text"), _with_text("text"), by_token=True),
        Format(
            "anserini",
            "Anserini and Pyserini (Lucene)",
            _with_text("contents"),
            _anserini_query,
            documents="documents/part-{:06d}.jsonl",
            queries="queries.tsv",
            scale=SCALE,
            drops_empty=True,
            spaceless_ids=True,
        ),
        Format("seismic", "Seismic", _with_text("content"), _with_text("content")),
        Format(
            "qdrant",
            "Qdrant",
            _qdrant_point,
            _qdrant_query,
            # No "modifier": the weights of queries hold the IDF already.
            settings={"collection.json": {"sparse_vectors": {FIELD: {}}}},
        ),
        Format(
            "elasticsearch",
            "Elasticsearch",
            _elasticsearch_document,
            _elasticsearch_query,
            documents="documents.ndjson",
            settings={
                "index.json": {
                    "mappings": {
                        "properties": {
                            FIELD: {"type": "sparse_vector", "index_options": {"prune": False}},
                            "text": {"type": "text", "index": False},
                        }
                    }
                }
            },
        ),
    )
}


def format_of(name: str) -> Format:
    """The format of a name.

    Raises:
        InputError: There is none.
    """
    if name not in FORMATS:
        raise InputError(f"format {name!r:.40}: give one of {', '.join(FORMATS)}")
    return FORMATS[name]
