"""Many documents into an index: the caller makes the next ones while threads send the last ones."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from st_l0.errors import InputError
from st_l0.index.opensearch import writing
from st_l0.index.opensearch.record import State
from st_l0.index.opensearch.server import Server
from st_l0.index.opensearch.writing import MAX_ITEMS, Failure, Item, requests, too_long
from st_l0.index.protocol import Add, Ids
from st_l0.utils.files import FileKind, check_file, replace_file
from st_l0.utils.sparse import Vectors, as_csr

_SENDERS = 4  # requests under way: as many as a small cluster works on, and what one node has in its queue
_WAITING = 4  # further ones that wait to be sent; then the caller waits
_PATIENCE = 300.0  # seconds without any acknowledgement, after which the server counts as gone
_MOST = 10_000  # refused documents, after which the fault is not theirs
_KEYS = ("id", "status", "type", "reason")


def _is_refused(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return tuple(json.loads(file.readline())) == _KEYS


REFUSED = FileKind("a file of refused documents", _is_refused)


class Target(Protocol):
    """What a load needs of an index; `OpenSearchIndex` has it."""

    server: Server

    @property
    def state(self) -> State:
        """What the server showed of the index last."""

    def bulk_settings(self) -> AbstractContextManager[Any]:
        """Settings for many documents, put back at the end."""

    def items(self, ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> list[Item]:
        """Documents as the server takes them."""

    def refresh(self) -> None:
        """Show what was written."""


@contextmanager
def load(index: Target, refused: str | Path | None) -> Iterator[Add]:
    """See `OpenSearchIndex.loading`."""
    server = index.server
    most = server.largest_body()

    def send(items: list[Item], stopped: threading.Event) -> list[Failure]:
        if most is not None and len(items[0].body or b"") > most:  # then it is alone
            return [too_long(items[0])]
        return writing.send(server, index.state, items, patience=_PATIENCE, stopped=stopped)

    with (
        index.bulk_settings(),
        server.patient(_PATIENCE),
        Pipeline(send, server.place, refused) as pipeline,
    ):

        def make(ids: Any, vectors: Vectors, texts: Sequence[str | None] | None) -> Iterator[list[Item]]:
            return requests(index.items(ids, vectors, texts), most)

        def add(ids: Ids, vectors: Vectors, texts: Sequence[str | None] | None = None) -> None:
            rows, matrix = list(ids), as_csr(vectors)
            if not len(rows) == matrix.shape[0] == (len(rows) if texts is None else len(texts)):
                index.items(rows, matrix, texts)  # says what does not match
            for start in range(0, len(rows), MAX_ITEMS):  # each made and sent by another thread
                some = slice(start, start + MAX_ITEMS)
                own = None if texts is None else texts[some]
                pipeline.submit(partial(make, rows[some], matrix[some], own))

        yield add
    index.refresh()


class Pipeline:
    """Documents on their way, in a ``with`` block; where it ends without an error, each has been answered.

    Args:
        send: Sends what a request may hold, and gives what the server refused; called by several threads.
        place: What complaints call the index.
        refused: File for the documents that the server refuses, a JSON object a line with id and reason;
            None: the complaint names the first one.

    Raises:
        InputError: At the end: documents were refused. All others are in the index.
    """

    def __init__(
        self,
        send: Callable[[list[Item], threading.Event], list[Failure]],
        place: str,
        refused: str | Path | None = None,
    ) -> None:
        self._send = send
        self._place = place
        self._file = None if refused is None else check_file(refused, REFUSED)
        self._pool = ThreadPoolExecutor(_SENDERS, thread_name_prefix="st_l0-bulk")
        self._room = threading.Semaphore(_SENDERS + _WAITING)
        self._stopped = threading.Event()
        self._refused: list[Failure] = []
        self._error: BaseException | None = None

    def submit(self, make: Callable[[], Iterable[list[Item]]]) -> None:
        """Hand documents over; waits while enough are under way.

        Args:
            make: Makes them, in lists of what a request may hold; called by another thread.

        Raises:
            InputError, ServerError: What went wrong with earlier ones.
        """
        self._room.acquire()
        if self._error is not None:
            raise self._error
        self._pool.submit(self._work, make).add_done_callback(self._done)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        if error is not None:
            self._stopped.set()
        self._pool.shutdown(cancel_futures=error is not None)
        self._write()
        if error is not None:
            return
        if self._error is not None:
            raise self._error
        if self._refused:
            raise self._complaint(f"{len(self._refused)} documents were refused, all others are in the index")

    def _work(self, make: Callable[[], Iterable[list[Item]]]) -> None:
        for items in make():
            self._refused += self._send(items, self._stopped)
            if len(self._refused) > _MOST:
                raise self._complaint(f"more than {_MOST:,} documents were refused, so no more are sent")

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and (error := future.exception()) is not None:
            self._error = self._error or error
            self._stopped.set()
        self._room.release()

    def _write(self) -> None:
        if self._file is None:
            return
        if not self._refused:
            self._file.unlink(missing_ok=True)  # an earlier run's, whose documents are in the index now
            return
        with replace_file(self._file, REFUSED) as new, new.open("w", encoding="utf-8") as file:
            for id, status, error in self._refused:
                row = (id, status, error.get("type"), error.get("reason"))
                file.write(json.dumps(dict(zip(_KEYS, row, strict=True)), ensure_ascii=False) + "\n")

    def _complaint(self, what: str) -> InputError:
        see = "" if self._file is None else f" ({self._file} says why)"
        return InputError(f"{self._place}: {what}{see}; first {self._refused[0].as_error(self._place)}")
