"""What an index says of itself: its settings as the server has them, and what we keep in its mapping."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from st_l0.errors import InputError
from st_l0.index.embedded.bm25 import WordSettings
from st_l0.index.opensearch.address import Address
from st_l0.index.opensearch.server import NotFoundError, Server
from st_l0.index.protocol import BM25

META = "st_l0"
VECTORS, WORDS, ID, TEXT, ENTRIES, FIELDS = "emb", "words", "id", "text", "entries", "fields"
_FORMAT = 1
_ASKED = ("max_result_window", "max_terms_count", "refresh_interval")


@dataclass(frozen=True)
class Record:
    """What is kept in the mapping of an index.

    Attributes:
        vocabulary_size: Length of the vectors; None while the index is new and was not told.
        id_kind: "str" or "int"; None while the index is new.
        metadata: A small JSON object of the caller.
        words: How words are kept; None if they are not.
        vectors: ``rank_features`` or ``sparse_vector``.
        tokens: Digest of the names of features; None where they are the tokens' numbers.
        loading: The settings before a load in bulk, and who does it; None if none is going on.
    """

    vocabulary_size: int | None = None
    id_kind: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    words: WordSettings | None = None
    vectors: str = "rank_features"
    tokens: str | None = None
    loading: dict[str, Any] | None = None

    def as_meta(self) -> dict[str, Any]:
        """The ``_meta`` of a mapping."""
        words = self.words and {
            "language": self.words.bm25.language,
            "k1": self.words.bm25.k1,
            "b": self.words.bm25.b,
            "analyzer": self.words.analyzer,
            "weight": self.words.weight,
        }
        return {
            META: {
                "format": _FORMAT,
                "vocabulary_size": self.vocabulary_size,
                "id_kind": self.id_kind,
                # As text: what a server does to an object of others is its own affair.
                "metadata": json.dumps(self.metadata),
                "words": words,
                "vectors": self.vectors,
                "tokens": self.tokens,
                "loading": self.loading,
            }
        }

    @classmethod
    def of_meta(cls, meta: Any, place: str) -> Record:
        """Read it back.

        Raises:
            InputError: The index was made by something else, or by a later version.
        """
        found = meta.get(META) if isinstance(meta, dict) else None
        if not isinstance(found, dict):
            raise InputError(f"{place}: an index that st-l0 did not make: give another name")
        if found.get("format") != _FORMAT:
            raise InputError(f"{place}: the index was made by a later version of st-l0: use that one")
        words = found.get("words")
        return cls(
            vocabulary_size=found.get("vocabulary_size"),
            id_kind=found.get("id_kind"),
            metadata=json.loads(found.get("metadata") or "{}"),
            words=words
            and WordSettings(
                BM25(words["language"], words["k1"], words["b"], "lucene"), words["analyzer"], words["weight"]
            ),
            vectors=found["vectors"],
            tokens=found.get("tokens"),
            loading=found.get("loading"),
        )


@dataclass(frozen=True)
class State:
    """An index as the server showed it.

    Attributes:
        name: Of the index itself, where the address names an alias.
        record: See `Record`.
        shards: How many have to answer a search.
        replicas: Copies of each beside the first.
        window: Hits that one search may have (``index.max_result_window``).
        terms: Values that one filter may have (``index.max_terms_count``).
        refresh: Its interval, as the server writes it; None if it is the server's default.
        blocked: Whether it takes no documents.
    """

    name: str
    record: Record
    shards: int
    replicas: int
    window: int
    terms: int
    refresh: str | None
    blocked: bool

    @property
    def root(self) -> str:
        """Path of the index's own requests."""
        return f"/{self.name}"


def read(server: Server, name: str) -> State | None:
    """The index of a name or an alias; None if there is none.

    Raises:
        InputError: It is an index of others, or several at once.
    """
    try:
        answer = server.request("GET", f"/{name}", include_defaults=True, flat_settings=False)
    except NotFoundError:
        return None
    if len(answer) != 1:
        raise InputError(f"{server.place}: the alias is of {len(answer)} indices, not of one")
    ((index, found),) = answer.items()
    given, defaults = found["settings"]["index"], found.get("defaults", {}).get("index", {})
    window, terms, _ = (given.get(one, defaults.get(one)) for one in _ASKED)
    blocks = given.get("blocks", {})
    return State(
        name=index,
        record=Record.of_meta(found["mappings"].get("_meta"), server.place),
        shards=int(given["number_of_shards"]),
        replicas=int(given["number_of_replicas"]),
        window=int(window or 10_000),
        terms=int(terms or 65_536),
        refresh=given.get("refresh_interval"),
        blocked=any(blocks.get(one) == "true" for one in ("write", "read_only", "read_only_allow_delete")),
    )


def write_record(server: Server, state: State, **changes: Any) -> State:
    """Change the record of an index, and give its state anew; what others changed meanwhile stays."""
    current = read(server, state.name)
    if current is None:
        raise InputError(f"{server.place}: the index {state.name} is gone: open it again")
    changed = replace(current, record=replace(current.record, **changes))
    if changed.record != current.record or "words" in changes:
        server.request("PUT", f"{state.root}/_mapping", {"_meta": changed.record.as_meta()})
    return changed


def create(
    server: Server,
    address: Address,
    record: Record,
    *,
    number: int = 1,
    alias: bool = True,
    seismic: Mapping[str, Any] | None = None,
) -> str:
    """Make an index, ``NAME-000001``, and the alias that it is reached by; gives its name.

    Raises:
        InputError: The server refuses it; not where another process was faster.
    """
    name = f"{address.name}-{number:06d}"
    index: dict[str, Any] = {}
    if address.shards is not None:
        index["number_of_shards"] = address.shards
    if address.replicas is not None:
        index["number_of_replicas"] = address.replicas
    if record.vectors == "sparse_vector":
        index["sparse"] = True
    if record.words is not None:
        # Words come analyzed; a long one stays whole.
        index["analysis"] = {
            "tokenizer": {"words": {"type": "whitespace", "max_token_length": 32766}},
            "analyzer": {"words": {"type": "custom", "tokenizer": "words"}},
        }
        bm25 = record.words.bm25
        index["similarity"] = {"words": {"type": "BM25", "k1": bm25.k1, "b": bm25.b}}
    body: dict[str, Any] = {"settings": {"index": index}, "mappings": mapping(record, seismic)}
    if alias:
        body["aliases"] = {address.name: {}}
    try:
        server.request("PUT", f"/{name}", body)
    except InputError as error:
        if "resource_already_exists_exception" not in str(error):
            raise
    return name


def mapping(record: Record, seismic: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The mapping of an index; a field that is not in it is refused.

    The id is a keyword too: read from its column it comes several times faster than from the document.
    """
    vectors: dict[str, Any] = {"type": record.vectors}
    if record.vectors == "sparse_vector":
        vectors["method"] = {"name": "seismic", "parameters": dict(seismic or {})}
    properties: dict[str, Any] = {
        ID: {"type": "keyword"},
        TEXT: {"type": "text", "index": False},
        ENTRIES: {"type": "integer"},
        FIELDS: {"type": "flat_object"},
        VECTORS: vectors,
    }
    if record.words is not None:
        properties[WORDS] = {
            "type": "text",
            "analyzer": "words",
            "similarity": "words",
            "index_options": "freqs",
        }
    return {"dynamic": "strict", "_meta": record.as_meta(), "properties": properties}
