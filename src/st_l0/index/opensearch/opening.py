"""Opening an index, making it, and putting a new one in its place; and what a server can do."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.address import Address
from st_l0.index.opensearch.record import VECTORS, Record, State, create, read
from st_l0.index.opensearch.server import USUAL_CLAUSES, Server

_GRACE = 2.0  # seconds for searches that have found the old index, but not searched it yet
BLOCKED = (
    "{}: the index takes no documents (index.blocks), as when a disk was nearly full: make room, or lift it"
)


def open_or_create(
    server: Server, address: Address, wanted: Record, *, make: bool, seismic: Mapping[str, Any] | None
) -> State:
    """The index of an address.

    Args:
        server: Where.
        address: Which.
        wanted: What a new one is made with; an existing one must not contradict it.
        make: Whether to make one if there is none.
        seismic: Parameters of a new index of ``sparse_vector``.

    Raises:
        InputError: There is none, or it has other vectors or words.
    """
    state = read(server, address.name)
    if state is None:
        if not make:
            raise InputError(f"{address}: there is no index of that name")
        if wanted.vectors == "sparse_vector" and wanted.words is not None:
            raise InputError(
                f"{address}: words need vectors=rank_features: beside sparse_vector most hits would lose "
                "the score of their vectors"
            )
        create(server, address, wanted, seismic=seismic)
        state = read(server, address.name)
        if state is None:
            raise InputError(
                f"{address}: the index {address.name}-000001 exists without its alias: remove it"
            )
    _check(address, wanted, state.record)
    return state


def check(target: str) -> None:
    """Refuse an address that `open_or_create` could not open, or where nothing can be written.

    Raises:
        InputError: It is none, nobody is there, or the index was made by something else.
        ServerError: The index takes no documents, or the server fails.
    """
    address = Address.parse(target)
    server = Server.connect(address)
    state = read(server, address.name)
    if state is not None and state.blocked:
        raise ServerError(BLOCKED.format(address))


def _check(address: Address, wanted: Record, found: Record) -> None:
    if None not in (wanted.vocabulary_size, found.vocabulary_size) and (
        wanted.vocabulary_size != found.vocabulary_size
    ):
        raise InputError(
            f"{address}: the index holds vectors of {found.vocabulary_size} dimensions, not "
            f"{wanted.vocabulary_size}: use the model that it was built with, or another index"
        )
    if wanted.words is not None and (found.words is None or found.words.bm25 != wanted.words.bm25):
        has = "no words" if found.words is None else f"words of {found.words.bm25}"
        raise InputError(
            f"{address}: the index holds {has}, not of {wanted.words.bm25}: open it without bm25, or another"
        )
    if wanted.vectors != found.vectors and wanted.vectors != Record.vectors:
        raise InputError(f"{address}: the index has {found.vectors}: leave vectors out, or give another name")
    if wanted.tokens is not None and wanted.tokens != found.tokens:
        has = "they are token ids" if found.tokens is None else "of other tokens"
        raise InputError(f"{address}: the features of the index have other names: {has}")


@contextmanager
def replacing(
    server: Server, address: Address, old: State, seismic: Mapping[str, Any] | None
) -> Iterator[State]:
    """Make an empty index with another's settings; at the end the alias shows it, and the other is removed.

    If the body raises, the new one is removed.

    Raises:
        InputError: The address names an index and no alias, or shows another index by now.
    """
    if address.name == old.name:
        raise InputError(f"{address}: this is an index and no alias, so that none can take its place")
    new = _successor(server, address, old, seismic)
    try:
        yield new
        # One request: every search finds the one or the other.
        actions = [
            {"remove": {"index": old.name, "alias": address.name, "must_exist": True}},
            {"add": {"index": new.name, "alias": address.name}},
        ]
        server.request("POST", "/_aliases", {"actions": actions})
    except BaseException:
        server.request("DELETE", new.root)
        raise
    time.sleep(_GRACE)
    server.request("DELETE", old.root)


def _successor(server: Server, address: Address, old: State, seismic: Mapping[str, Any] | None) -> State:
    pattern = re.compile(rf"{re.escape(address.name)}-(\d{{6}})")
    there = server.request(
        "GET", f"/{address.name}-*/_settings", filter_path="*.settings.index.number_of_shards"
    )
    numbers = [int(found[1]) for found in map(pattern.fullmatch, there) if found]
    settings = replace(
        address,
        shards=address.shards or old.shards,
        replicas=old.replicas if address.replicas is None else address.replicas,
    )
    record = replace(old.record, id_kind=None, loading=None)
    number = max(numbers, default=0) + 1
    name = create(server, settings, record, number=number, alias=False, seismic=seismic)
    made = read(server, name)
    if made is None:
        raise InputError(f"{address}: the index {name} was removed as it was made")
    return made


def has_neural_sparse(server: Server, state: State) -> bool:
    """Whether the server knows `neural_sparse`; asked by a search, which takes no further rights."""
    probe = {"size": 0, "query": {"neural_sparse": {VECTORS: {"query_tokens": {"0": 1.0}}}}}
    try:
        server.request("POST", f"{state.root}/_search", probe)
    except InputError as error:
        if "neural_sparse" not in str(error):
            raise
        return False
    return True


def clause_limit(server: Server) -> int:
    """How many clauses a query may have; the usual number where one may not ask."""
    try:
        answer = server.request(
            "GET",
            "/_cluster/settings",
            include_defaults=True,
            filter_path="*.indices.query.bool.max_clause_count",
        )
    except InputError:
        return USUAL_CLAUSES
    for kind in ("transient", "persistent", "defaults"):
        if kind in answer:
            return int(answer[kind]["indices"]["query"]["bool"]["max_clause_count"])
    return USUAL_CLAUSES
