"""The JSON API in OpenAPI 3.1, written by hand; a test holds it against the answers."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from st_l0.demo.service import LONGEST_DOCUMENT, LONGEST_QUERY, MOST_HITS

Schema = dict[str, Any]

_ID: Schema = {"type": ["string", "integer"]}
_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer"}
_YES: Schema = {"type": "boolean"}


def _or_null(kind: str) -> Schema:
    return {"type": [kind, "null"]}


def _all(**properties: Schema) -> Schema:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


_PART = _all(kind={"enum": ["token", "word"]}, name=_TEXT, query=_NUMBER, document=_NUMBER, score=_NUMBER)
_QUERY: dict[str, Schema] = {
    "query": _TEXT,
    "active_dims": _COUNT,
    "flops": _or_null("number"),
    "tokens": _list(_all(token=_TEXT, id=_COUNT, weight=_NUMBER, kept=_YES, documents=_or_null("integer"))),
}
_DOCUMENT: dict[str, Schema] = {
    "score": _NUMBER,
    "parts": _list(_PART),
    "active_dims": _COUNT,
    "pieces": {
        "type": ["array", "null"],
        "items": _all(text=_TEXT, id=_or_null("integer"), weight=_NUMBER),
    },
    "cut": _YES,
    "tokens": _list(_all(token=_TEXT, id=_COUNT, weight=_NUMBER, in_text=_YES)),
}
_HIT = _all(
    rank=_COUNT,
    id=_ID,
    score=_NUMBER,
    text=_or_null("string"),
    cut=_YES,
    parts={"type": ["array", "null"], "items": _PART},
)
ANSWERS: dict[str, Schema] = {
    "/about": _all(
        name=_TEXT,
        model=_TEXT,
        index=_YES,
        documents=_or_null("integer"),
        bm25=_or_null("string"),
        bm25_weight=_or_null("number"),
        fields=_YES,
    ),
    "/search": _all(**_QUERY, hits=_list(_HIT), milliseconds=_NUMBER),
    "/encode_query": _all(**_QUERY),
    "/explain": _all(id=_ID, **_DOCUMENT),
    "/encode_document": _all(**_DOCUMENT),
}
_ERROR = _all(error=_TEXT)
_TITLES = {
    "/about": "What there is to ask.",
    "/search": "The best documents for a query, and what each token and word adds to their scores.",
    "/encode_query": "The tokens of a query and their weights; no model runs.",
    "/explain": "Why a document has its score, its weights, and its text in pieces.",
    "/encode_document": "What a text becomes as a document; the model is loaded with the first one.",
}


def _parameter(name: str, schema: Schema, description: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


_Q = _parameter("q", {"type": "string", "maxLength": LONGEST_QUERY}, "The query.")
_PRUNE = _parameter(
    "prune",
    {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
    "Leave out weights of the query below this share of its heaviest.",
)
_BM25 = _parameter(
    "bm25",
    {"oneOf": [{"type": "number", "minimum": 0}, {"const": "auto"}], "default": 0},
    "How much BM25 counts beside the model; auto is what the index has stored.",
)
_MODEL = _parameter("model", {**_YES, "default": True}, "false: words alone.")
_PARAMETERS = {
    "/search": [
        _Q,
        _parameter(
            "k", {"type": "integer", "minimum": 1, "maximum": MOST_HITS, "default": 10}, "Documents to find."
        ),
        _PRUNE,
        _BM25,
        _MODEL,
        _parameter("id", _list(_ID), "Only these may be found; repeatable.", explode=True),
        _parameter("filter", _list(_TEXT), "FIELD=VALUE, of an index on a server; repeatable.", explode=True),
        _parameter("explain", {**_YES, "default": True}, "false: parts is null."),
    ],
    "/encode_query": [_Q, _PRUNE],
    "/explain": [_Q, _parameter("id", _ID, "The document.", required=True), _PRUNE, _BM25, _MODEL],
}


def describe() -> dict[str, Any]:
    """The whole document."""
    paths: dict[str, Any] = {}
    for path, answer in ANSWERS.items():
        operation: dict[str, Any] = {
            "summary": _TITLES[path],
            "operationId": path[1:],
            "responses": {
                "200": {"description": "The answer.", "content": {"application/json": {"schema": answer}}},
                "400": {
                    "description": "Unusable input; one line.",
                    "content": {"application/json": {"schema": _ERROR}},
                },
            },
        }
        if path in _PARAMETERS:
            operation["parameters"] = _PARAMETERS[path]
        if path == "/encode_document":
            body = _all(text={"type": "string", "maxLength": LONGEST_DOCUMENT})
            body["properties"] |= {"q": _Q["schema"], "prune": _PRUNE["schema"]}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        paths[path] = {"post" if path == "/encode_document" else "get": operation}
    info = {"title": "st-l0 demo", "version": version("st-l0")}
    return {"openapi": "3.1.0", "info": info, "paths": paths}
