"""Writing many documents: in requests of a fair size, each document again where that may help."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.record import State
from st_l0.index.opensearch.server import PASSING, Server, complaint, is_blocked, kind_of

Action = Literal["index", "create", "delete"]
MAX_BYTES = 8 << 20  # of a request; the server takes 100 MB by default, and is no faster for it
MAX_ITEMS = 1024  # a half of what `index_corpus` adds at once
_PATIENCE = 30.0  # seconds without any acknowledgement
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 20.0  # seconds; between them twice as long each time
_FAULTS = 6  # attempts in which the server itself may fail (500); then it is the document
_GONE = ("index_not_found_exception", "index_closed_exception")
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


def send(
    server: Server,
    state: State,
    items: Sequence[Item],
    *,
    patience: float = _PATIENCE,
    stopped: threading.Event | None = None,
) -> list[Failure]:
    """Write documents in one request, and in more those for which the server had no room, until none is left.

    May be called by several threads. A request that got no answer may have been carried out in part, or may
    be yet; only an acknowledgement proves that a document is on all its copies. So all of it is sent again:
    under its own id a document replaces itself, and one that is to be created and is there counts as written.

    Args:
        server: Where.
        state: The index.
        items: As many as a request may hold; see `requests`.
        patience: Seconds without any acknowledgement, after which the server counts as gone.
        stopped: Set by a caller who has given up; what is left then is not sent.

    Returns:
        The documents that the server refuses for what they are.

    Raises:
        InputError: The server refuses all of it: the index is gone or closed, the user may not write.
        ServerError: The server has no room for so long, takes no documents (a full disk), or does not answer.
            Some may have been written.
    """
    stopped = stopped or threading.Event()
    failed: list[Failure] = []
    left, again, attempt, acknowledged = list(items), False, 0, time.monotonic()
    while left and not stopped.is_set():
        busy, why = _once(server, state, left, failed, again=again, faulty=attempt >= _FAULTS)
        if len(busy) < len(left):
            acknowledged = time.monotonic()
        silent = time.monotonic() - acknowledged
        if busy and silent > patience:
            raise ServerError(
                f"{server.place}: took none of {len(busy)} documents for {silent:.0f} seconds ({why}); "
                "what was written stays: look at the server and start again"
            )
        left, again, attempt = busy, True, attempt + 1
        if left:
            stopped.wait(min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(attempt, 10)) * random.uniform(0.5, 1))
    return failed


def _once(
    server: Server, state: State, items: list[Item], failed: list[Failure], *, again: bool, faulty: bool
) -> tuple[list[Item], str]:
    """Send once; gives what has to be sent again, and why."""
    body = b"".join(item.lines() for item in items)
    try:
        answer = server.once(
            "POST",
            f"{state.root}/_bulk",
            body,
            # The server says that a copy is missing before we stop listening.
            timeout=f"{max(1, round(server.seconds / 2))}s",
            request_timeout=server.seconds,
            filter_path="errors,items.*.status,items.*.error",
        )
    except (InputError, ServerError) as error:
        status, info = (getattr(error.__cause__, name, None) for name in ("status_code", "info"))
        if status == 413:
            return _less_at_once(server, state, items, failed, again=again, faulty=faulty)
        if isinstance(error, InputError) or is_blocked(status, info):
            raise
        return items, str(error)
    if not answer["errors"]:
        return [], ""
    if len(answer["items"]) != len(items):
        raise ServerError(f"{server.place}: {len(answer['items'])} answers to {len(items)} documents")
    busy, why = [], ""
    for item, result in zip(items, answer["items"], strict=True):
        (said,) = result.values()
        status, told = said["status"], said.get("error")
        if told is None or (status == 409 and item.action == "create" and again):
            continue
        failure = Failure(item.id, status, told)
        if is_blocked(status, told) or kind_of(told) in _GONE:
            raise failure.as_error(server.place)
        if status in PASSING or (status >= 500 and not faulty):
            busy.append(item)
            why = str(failure.as_error(server.place))
        else:
            failed.append(failure)
    return busy, why


def _less_at_once(
    server: Server, state: State, items: list[Item], failed: list[Failure], **how: bool
) -> tuple[list[Item], str]:
    """Send halves, down to single documents, to a server or proxy that takes no body of that size."""
    if len(items) == 1:
        failed.append(too_long(items[0]))
        return [], ""
    middle = len(items) // 2
    found = [_once(server, state, some, failed, **how) for some in (items[:middle], items[middle:])]
    return found[0][0] + found[1][0], found[0][1] or found[1][1]


def too_long(item: Item) -> Failure:
    """A document that no request can hold."""
    told = f"its {len(item.body or b''):,} bytes are more than http.max_content_length of the server"
    return Failure(item.id, 413, {"type": "content_too_long_exception", "reason": told})


def requests(items: Iterable[Item], most: int | None = None) -> Iterator[list[Item]]:
    """Cut a stream of items into what one request may hold; ``most``: bytes that the server takes."""
    largest = MAX_BYTES if most is None else min(MAX_BYTES, most)
    group: list[Item] = []
    size = 0
    for item in items:
        more = len(item.body or b"") + len(item.id) + 40
        if group and (len(group) >= MAX_ITEMS or size + more > largest):
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
        for document in _get(server, state, some, _source="false", preference="_primary"):
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
