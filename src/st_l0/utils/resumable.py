"""A folder of numbered shards, written by one process or by many, in steps that survive an interruption.

Beside the shards lies a record in JSON: how they are made, and once all are there how many items they hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Sized
from pathlib import Path
from typing import Any, TypeVar

from tqdm.auto import tqdm

from st_l0.errors import InputError
from st_l0.utils.batches import batched
from st_l0.utils.distributed import rank, world_size
from st_l0.utils.files import replace_file

T = TypeVar("T")


def begin_record(path: Path, record: dict[str, Any], required: Collection[str]) -> dict[str, Any]:
    """Begin a folder with a record, or read the record of a run that was stopped.

    Args:
        path: Where the record is or belongs.
        record: What this run would write.
        required: Keys that make the file such a record; see `read_record`.

    Returns:
        ``record``, or the one that is there, which the caller compares.

    Raises:
        InputError: The folder holds other files, or a damaged record.
    """
    folder = path.parent
    foreign = folder.is_dir() and any(not entry.name.startswith(".") for entry in folder.iterdir())
    if path.exists():  # looked at after the listing: another process may have begun in between
        return read_record(path, required)
    if foreign:
        raise InputError(f"{folder}: holds files but no {path.name}; give a new or empty folder")
    write_record(path, record)
    return record


def check_record(path: Path, found: dict[str, Any], record: dict[str, Any], keys: Iterable[str]) -> None:
    """Refuse a folder that was begun with other settings.

    Raises:
        InputError: ``found`` and ``record`` differ in one of the keys.
    """
    for key in keys:
        if found.get(key) != record[key]:
            raise InputError(
                f"{path}: begun with {key} {found.get(key)}, not {record[key]}; give a new folder"
            )


def read_record(path: Path, required: Collection[str]) -> dict[str, Any]:
    """Read a record.

    Raises:
        InputError: It is no JSON, or lacks one of the keys ``required``.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error}); give a new folder") from error
    missing = sorted(set(required) - set(record) if isinstance(record, dict) else required)
    if missing:
        raise InputError(f"{path}: not a record, it lacks {', '.join(missing)}; give a new folder")
    return dict(record)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(json.dumps(record, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def shard_path(folder: str | Path, number: int, suffix: str) -> Path:
    """Where shard ``number``, from 0, is or belongs."""
    return Path(folder) / f"part-{number:06d}.{suffix}"


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
        description: What the progress bar says.
        progress: Whether to show one (on a terminal).

    Returns:
        Number of items.

    Raises:
        InputError: There are no items, or shards beyond their end.
    """
    folder, total, shards = path.parent, 0, 0
    number = len(items) if isinstance(items, Sized) else None
    disable = None if progress and rank() == 0 else True
    with tqdm(total=number, desc=description, unit=unit, disable=disable) as bar:
        for chunk in batched(items, size):
            if shards % world_size() == rank():
                finish(shard_path(folder, shards, suffix), chunk)
            total, shards = total + len(chunk), shards + 1
            bar.update(len(chunk))
    if not total:
        raise InputError(f"{folder}: there are no {unit}s; give at least one")
    present = sorted(folder.glob(f"part-*.{suffix}"))
    if present[shards:]:
        raise InputError(f"{present[shards]}: the input ends before this part; give a new folder")
    if len(present) == shards and record[f"{unit}s"] != total:
        write_record(path, {**record, f"{unit}s": total})
    return total
