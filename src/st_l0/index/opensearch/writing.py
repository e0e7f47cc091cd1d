"""Writing many documents: in requests of a fair size, each document again where that may help."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.record import State
from st_l0.index.opensearch.server import Server, complaint, kind_of

Action = Literal["index", "create", "delete"]
MAX_BYTES = 8 << 20  # of a request; the server takes 100 MB by default, and is no faster for it
MAX_ITEMS = 1000
_PAUSES = (0.1, 0.3, 1.0, 2.0, 4.0, 8.0)  # seconds until a full queue is asked again


class Item(NamedTuple):
    """What happens to one document: ``index`` replaces it, ``create`` expects none."""

    action: Action
    id: str
    body: bytes | None = None

    def lines(self) -> bytes:
        """Its part of a request."""
        head = json.dumps({self.action: {"_id": self.id}}).encode()
        return head + b"\n" if self.body is None else b"%b\n%b\n" % (head, self.body)


class Failure(NamedTuple):
    """A document that was not written, and why."""

    id: str
    status: int
    error: dict[str, Any]

    def as_error(self, place: str) -> InputError | ServerError:
        """The complaint about it."""
        if self.status == 409:
            return InputError(f"id {self.id!r} is in the index already: update() replaces it")
        return complaint(f"{place}: document {self.id!r}", self.status, {"error": self.error})


def send(server: Server, state: State, items: Sequence[Item]) -> list[Failure]:
    """Write documents in one request, and what the server had no room for in further ones.

    May be called by several threads. After a lost answer the same is sent again, so a document that is to be
    created and is there by then counts as written.

    Args:
        server: Where.
        state: The index.
        items: As many as a request may hold; see `requests`.

    Returns:
        The documents that the server refuses for what they are.

    Raises:
        ServerError: The server has no room for them in half a minute, takes no documents (a full disk), or
            does not answer. Some may have been written.
    """
    left, failed, again = list(items), [], False
    for pause in (*_PAUSES, None):
        body = b"".join(item.lines() for item in left)
        answer = server.request("POST", f"{state.root}/_bulk", body, _source="false")
        if len(answer["items"]) != len(left):
            raise ServerError(f"{server.place}: {len(answer['items'])} answers to {len(left)} documents")
        if not answer["errors"]:
            return failed
        busy = []
        last: Failure | None = None
        for item, result in zip(left, answer["items"], strict=True):
            (said,) = result.values()
            status, error = said["status"], said.get("error")
            if error is None or (status == 409 and item.action == "create" and again):
                continue
            failure = Failure(item.id, status, error)
            if kind_of(error) == "cluster_block_exception":
                raise failure.as_error(server.place)
            if status == 429 or status >= 500:
                busy.append(item)
                last = failure
            else:
                failed.append(failure)
        if last is None:
            return failed
        if pause is None:
            raise ServerError(
                f"{server.place}: {len(busy)} documents were refused again and again: "
                f"{last.as_error(server.place)}"
            )
        left, again = busy, True
        time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError  # the last attempt returns or raises


def requests(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Cut a stream of items into what one request may hold."""
    group: list[Item] = []
    size = 0
    for item in items:
        more = len(item.body or b"") + len(item.id) + 40
        if group and (len(group) >= MAX_ITEMS or size + more > MAX_BYTES):
            yield group
            group, size = [], 0
        group.append(item)
        size += more
    if group:
        yield group


def known(server: Server, state: State, ids: Sequence[str]) -> set[str]:
    """Those of some ids that are in the index, also if they were written a moment ago.

    Raises:
        ServerError: A part of the index does not answer, so that nobody knows.
    """
    found: set[str] = set()
    for start in range(0, len(ids), 2 * MAX_ITEMS):
        some = list(ids[start : start + 2 * MAX_ITEMS])
        for document in _get(server, state, some, _source="false"):
            if document["found"]:
                found.add(document["_id"])
    return found


def sources(server: Server, state: State, ids: Sequence[str], field: str) -> list[Any]:
    """A field of some documents, None where there is none; errors as for `known`."""
    values: list[Any] = []
    for start in range(0, len(ids), MAX_ITEMS):
        for document in _get(server, state, list(ids[start : start + MAX_ITEMS]), _source=field):
            values.append(document.get("_source", {}).get(field) if document["found"] else None)
    return values


def _get(server: Server, state: State, ids: list[str], **params: str) -> list[dict[str, Any]]:
    for pause in (*_PAUSES, None):
        documents: list[dict[str, Any]] = server.request(
            "POST", f"{state.root}/_mget", {"ids": ids}, **params
        )["docs"]
        broken = next((one for one in documents if "error" in one), None)
        if broken is None and len(documents) == len(ids):
            return documents
        if pause is None:
            why = complaint(server.place, 503, broken) if broken else "too few answers"
            raise ServerError(f"{server.place}: a part of the index does not answer: {why}")
        time.sleep(pause * random.uniform(0.5, 1))
    raise AssertionError
