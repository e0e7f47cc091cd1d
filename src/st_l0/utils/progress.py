"""Progress of long work: live bars on a terminal, and elsewhere a plain line every half a minute.

All of it goes to standard error. Works that are under way at one time, one inside the other, share the bars
and the lines. Of several processes that a launcher started the first one speaks.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from st_l0.utils.terminal import cell, is_terminal, printable

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

SECONDS = 30.0  # between two plain lines
_WORTH_A_LINE = 2.0  # seconds that a work took, for a terminal to keep a line of it
_T = TypeVar("_T")


class Work:
    """A piece of work under way.

    Attributes:
        description: What it is called.
        total: What there is to do; ``None`` where that is not known.
        done: What is done of it.
        told: Whether a plain line was printed of it.
    """

    def __init__(self, description: str, total: int | None, unit: str, delay: float) -> None:
        self.description = description
        self.total = total
        self.done = 0
        self.told = False
        self._unit = unit
        self._delay = delay
        self._earlier = 0
        self._begun = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Take note that so much more is done."""
        self.done += count

    def restart(self, done: int, total: int | None) -> None:
        """Count and measure the time from now on, from what an earlier run has done."""
        self.done = self._earlier = done
        self.total = total
        self._begun = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    @property
    def seconds_left(self) -> float | None:
        """Until it ends, if it goes on as fast as until now."""
        now = self.done - self._earlier
        return None if self.total is None or now <= 0 else (self.total - self.done) * self.seconds / now

    @property
    def visible(self) -> bool:
        """Whether it has lasted long enough to be shown."""
        return self.seconds >= self._delay

    def in_words(self) -> str:
        """How far it is, such as ``1,024 of 4,096 texts (25 %), 51/s, 1:00 left``."""
        left, of_all, share = self.seconds_left, "", ""
        if self.total:
            of_all, share = f" of {self.total:,}", f" ({100 * self.done // self.total} %)"
        speed = f", {self._speed()}" if self.done > self._earlier else ""
        time_left = f"{clock(self.seconds)} gone" if left is None else f"{clock(max(0, left))} left"
        return f"{self.done:,}{of_all} {self._unit}{share}{speed}, {time_left}"

    def in_the_end(self) -> str:
        """What it took, such as ``4,096 texts in 1:20, 51/s``."""
        return f"{self.done:,} {self._unit} in {clock(self.seconds)}, {self._speed()}"

    def _speed(self) -> str:
        speed = (self.done - self._earlier) / max(self.seconds, 1e-9)
        return f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2g}/s"


def clock(seconds: float) -> str:
    """Such as ``0:07``, ``12:30`` or ``3:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@contextmanager
def show_progress(
    description: str,
    total: int | None = None,
    *,
    unit: str,
    shown: bool = True,
    delay: float = 0.0,
    summary: bool = True,
) -> Iterator[Work]:
    """Show how far a work is while the body runs.

    Args:
        description: What it is called.
        total: What there is to do, if that is known.
        unit: What is counted, in the plural.
        shown: Whether to show it at all.
        delay: Seconds that it has to take to be shown.
        summary: Whether a line says at the end what it took, if it took some time.

    Yields:
        The work, whose ``update`` is called as it goes on.
    """
    work = Work(description, total, unit, delay)
    if not shown or os.environ.get("RANK", "0") != "0":
        yield work
        return
    _board.add(work)
    try:
        yield work
    finally:
        _board.remove(work, summary=summary)


def track(
    items: Iterable[_T],
    description: str,
    total: int | None = None,
    *,
    unit: str,
    shown: bool = True,
    delay: float = 0.0,
) -> Iterator[_T]:
    """Hand items on, and show how far it is; see `show_progress`. Without a ``total`` it is their number."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with show_progress(description, total, unit=unit, shown=shown, delay=delay, summary=not delay) as work:
        for item in items:
            yield item
            work.update()


def write(line: str, style: str = "") -> None:
    """Print a line to standard output, above the bars where there are some."""
    _board.write(printable(line), style)


class _Board:
    """The works under way, and what shows them: a live display, or a thread that prints lines."""

    def __init__(self) -> None:
        self._works: list[Work] = []
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._ended: threading.Event | None = None
        self._spoken = 0.0  # when the last line was printed

    def add(self, work: Work) -> None:
        with self._lock:
            self._works.append(work)
            if len(self._works) == 1:
                self._spoken = time.monotonic()
                self._live = _open_live(self._table)
                if self._live is None:
                    self._ended = threading.Event()
                    threading.Thread(target=self._speak, args=(self._ended,), daemon=True).start()

    def remove(self, work: Work, *, summary: bool) -> None:
        with self._lock:
            self._works.remove(work)
            last = not self._works
            live = self._live is not None
            if last and self._live is not None:
                self._live.stop()
                self._live = None
            if last and self._ended is not None:
                self._ended.set()
                self._ended = None
            if summary and last and (work.seconds >= _WORTH_A_LINE if live else work.told):
                _print(f"{work.description}: {work.in_the_end()}")

    def write(self, line: str, style: str) -> None:
        with self._lock:
            self._spoken = time.monotonic()
            if self._live is not None and is_terminal(sys.stdout):
                self._live.console.print(cell(line, style), soft_wrap=True)
            else:
                print(line, flush=True)

    def _table(self) -> Table:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        table = Table.grid(padding=(0, 2, 0, 0))
        for work in list(self._works):
            if work.visible:
                bar = ProgressBar(total=work.total, completed=work.done, width=24, pulse=work.total is None)
                table.add_row(cell(work.description, "bold"), bar, cell(work.in_words()))
        return table

    def _speak(self, ended: threading.Event) -> None:
        while not ended.wait(max(0.01, self._spoken + SECONDS - time.monotonic())):
            with self._lock:
                if ended.is_set() or time.monotonic() < self._spoken + SECONDS:
                    continue
                self._spoken = time.monotonic()
                if works := [work for work in self._works if work.visible]:
                    works[0].told = True
                    _print(" · ".join(f"{work.description}: {work.in_words()}" for work in works))


def _open_live(table: Any) -> Live | None:
    """A display that is refreshed by a thread of its own; ``None`` where standard error is no terminal."""
    if not is_terminal(sys.stderr):
        return None
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False, emoji=False)
    if console.is_dumb_terminal:
        return None
    live = Live(
        get_renderable=table,
        console=console,
        transient=True,
        # Standard output that is a file stays one.
        redirect_stdout=is_terminal(sys.stdout),
    )
    live.start(refresh=True)
    return live


def _print(line: str) -> None:
    with suppress(OSError, ValueError):  # nobody reads it any more
        print(printable(line), file=sys.stderr, flush=True)


_board = _Board()
