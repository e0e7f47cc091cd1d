"""Opening Arrow data sets: saved in a folder, from the Hub, or built once in the datasets cache."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from st_l0.errors import InputError
from st_l0.utils.terminal import is_terminal

if TYPE_CHECKING:
    from datasets import Dataset

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_FILE_NAME = re.compile(r".*\.(jsonl?|parquet|txt|tsv|csv|gz|zip|arrow)", re.IGNORECASE)
_REASON_LENGTH = 300


def is_saved(folder: Path) -> bool:
    """Whether ``datasets`` wrote the folder with ``save_to_disk``."""
    return (folder / "state.json").exists() or (folder / "dataset_dict.json").exists()


def is_repository(folder: Path) -> bool:
    """Whether the folder is a downloaded data set repository of the Hub."""
    return (folder / "README.md").exists()


def is_hub_name(source: str | Path) -> bool:
    """Whether the source is no path that exists, but may be ``owner/name`` of the Hub."""
    return (
        isinstance(source, str)
        and _HUB_NAME.fullmatch(source) is not None
        and _FILE_NAME.fullmatch(source) is None
        and not Path(source).exists()
    )


def load_saved(folder: Path) -> Dataset:
    """Open a folder written by ``datasets.Dataset.save_to_disk``, memory-mapped.

    Raises:
        InputError: it holds several splits.
    """
    from datasets import Dataset, load_from_disk

    dataset = load_from_disk(str(folder))
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"{folder}: holds several splits; give one of {', '.join(str(folder / s) for s in dataset)}"
        )
    return dataset


def load_hub(name: str | Path, *, split: str, configuration: str | None = None) -> Dataset:
    """Load a data set of the Hub, or a downloaded repository of one, memory-mapped.

    Raises:
        InputError: it cannot be reached, or there is no such data set, configuration or split.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    try:
        with _bars_on_terminals_only():
            return load_dataset(str(name), configuration, split=split)
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:_REASON_LENGTH]
        part = f"split {split!r}" if configuration is None else f"{configuration!r}, split {split!r}"
        where = (
            "the folder does not give" if Path(name).exists() else "no such path, and the Hub does not give"
        )
        raise InputError(f"{name}: {where} {part} ({reason}); check the name and the network") from None


def build(records: Callable[..., Iterator[dict[str, str]]], path: Path) -> Dataset:
    """Turn a file into Arrow data in the ``datasets`` cache, once for each state of the file.

    Args:
        records: Importable function that reads the file; it takes ``path`` and ``state``, and ignores
            ``state``, which only tells one state of the file from another.
        path: The file.

    Returns:
        The records, memory-mapped, each key a column of strings.

    Raises:
        InputError: what ``records`` raises; there is no such file.
    """
    from datasets import Dataset
    from datasets.exceptions import DatasetGenerationError

    if not path.is_file():
        raise InputError(f"{path}: no such file; check the path")
    status = path.stat()
    state = (status.st_mtime_ns, status.st_size)
    try:
        with _bars_on_terminals_only():
            return Dataset.from_generator(records, gen_kwargs={"path": str(path.absolute()), "state": state})
    except DatasetGenerationError as error:
        raise error.__cause__ or error from None


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if is_terminal(sys.stderr) or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
