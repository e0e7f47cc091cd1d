"""A folder of numbered shards, written by one process or by many, in steps that survive an interruption.

Beside the shards lies a record, see `st_l0.utils.records`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from st_l0.errors import InputError
from st_l0.utils.batches import batched
from st_l0.utils.distributed import first_of_run, rank, world_size
from st_l0.utils.files import check_writable
from st_l0.utils.locks import hold
from st_l0.utils.progress import show_progress
from st_l0.utils.records import PARTS, check_part, digest, shard_path, write_record

T = TypeVar("T")


@contextmanager
def hold_output(folder: Path, what: str = "is writing there") -> Iterator[None]:
    """Let no other run write to a folder while the body runs; of the processes of one run the first holds it.

    Raises:
        InputError: Another run does, or nothing can be written there.
    """
    if not first_of_run():
        yield
        return
    check_writable(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with hold(folder / ".st_l0.lock", what):
            yield
    finally:
        if new:  # a run that was refused leaves no empty folder
            with suppress(OSError):
                folder.rmdir()


def write_shards(
    path: Path,
    record: dict[str, Any],
    suffix: str,
    items: Iterable[T],
    size: int,
    finish: Callable[[Path, list[T]], None],
    *,
    unit: str,
    description: str,
    progress: bool,
) -> int:
    """Write a shard for each ``size`` items; of several processes the one of rank r every r-th.

    The last of them, which sees all shards, writes their number into the record.

    Args:
        path: Where the record is, and the shards beside it.
        record: What it holds. Its key ``unit`` and an "s" takes the number of items.
        suffix: What their names end with.
        items: What they hold; a stream is consumed as it comes, with one shard in memory.
        size: Items of a shard.
        finish: Writes a shard, or makes sure that the one that is there holds these items.
        unit: What an item is called.
        description: What the work is called.
        progress: Whether to show it, see `st_l0.utils.progress`.

    Returns:
        Number of items.

    Raises:
        InputError: There are no items, or shards beyond their end.
    """
    folder, total, shards = path.parent, 0, 0
    digests: dict[int, str] = {}
    number = len(items) if isinstance(items, Sized) else None
    shown = progress and rank() == 0
    with show_progress(description, number, unit=f"{unit}s", shown=shown) as bar:
        for chunk in batched(items, size):
            if shards % world_size() == rank():
                shard = shard_path(folder, shards, suffix)
                if shard.exists():
                    check_part(shard, shards, record, "remove it and start again")
                finish(shard, chunk)
                digests[shards] = digest(shard)
            total, shards = total + len(chunk), shards + 1
            bar.update(len(chunk))
    if not total:
        raise InputError(f"{folder}: there are no {unit}s; give at least one")
    present = sorted(folder.glob(f"part-*.{suffix}"))
    if present[shards:]:
        raise InputError(f"{present[shards]}: the input ends before this part; give a new folder")
    if len(present) == shards:
        parts = [digests.get(number) or digest(shard) for number, shard in enumerate(present)]
        whole = {**record, f"{unit}s": total, PARTS: parts}
        if whole != record:
            write_record(path, whole)
    return total
