"""Settings for loading in bulk, which are put back afterwards, also when the loader was killed."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from st_l0.errors import InputError, ServerError
from st_l0.index.opensearch.record import State, read, write_record
from st_l0.index.opensearch.server import Server

logger = logging.getLogger(__name__)


@contextmanager
def bulk_settings(server: Server, state: State, *, replicas: bool = True) -> Iterator[None]:
    """While the body runs nothing is refreshed; afterwards all is as before, and what was added is found.

    What was set before stands in the index's record, so that `put_back` can do it later, too.

    Args:
        server: Where.
        state: The index.
        replicas: Keep them. Without, a load is about twice as fast, and lost with the one node that has it.

    Raises:
        InputError: The server refuses it.
        ServerError: The server does not do it.
    """
    current = read(server, state.name) or state
    # One that was killed has left its own record: what was set before is in there.
    before = current.record.loading or {"refresh_interval": current.refresh, "replicas": current.replicas}
    mine = {**before, "host": socket.gethostname(), "process": os.getpid()}
    write_record(server, state, loading=mine)
    changed: dict[str, Any] = {"refresh_interval": "-1"}
    if not replicas:
        changed["number_of_replicas"] = 0
    server.request("PUT", f"{state.root}/_settings", {"index": changed})
    try:
        yield
    except BaseException:
        _try_to_put_back(server, state)  # what went wrong first is what counts
        raise
    put_back(server, state)


def put_back(server: Server, state: State) -> None:
    """Set what was set before a load in bulk, whoever did it; nothing where there was none."""
    current = read(server, state.name)
    before = None if current is None else current.record.loading
    if before is None:
        return
    old = {"refresh_interval": before["refresh_interval"], "number_of_replicas": before["replicas"]}
    server.request("PUT", f"{state.root}/_settings", {"index": old})
    server.request("POST", f"{state.root}/_refresh")
    write_record(server, state, loading=None)


def _try_to_put_back(server: Server, state: State) -> None:
    try:
        put_back(server, state)
    except (InputError, ServerError) as error:  # also of a server that takes nothing, as with a full disk
        logger.warning(
            "%s: settings for loading in bulk are still set (%s); the next load puts them back, and so does "
            "opening the index when this process has ended",
            server.place,
            error,
        )


def put_back_after_a_crash(server: Server, state: State) -> None:
    """Do so if who loaded it was a process of this machine, and is no more; else say who does or did."""
    loading = state.record.loading
    if loading is None or loading.get("process") == os.getpid():
        return
    if loading.get("host") == socket.gethostname() and not _runs(int(loading["process"])):
        logger.warning("%s: a load was interrupted; its settings are put back", server.place)
        _try_to_put_back(server, state)
    elif loading.get("host") != socket.gethostname():
        logger.warning(
            "%s: process %s on %s is loading documents, which are not found yet; if it has ended, "
            "put_back_settings() makes them so",
            server.place,
            loading.get("process"),
            loading.get("host"),
        )


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
