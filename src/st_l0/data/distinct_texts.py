"""The distinct texts of columns of a data set, which are not held for that."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from st_l0.utils.text_rows import as_keys, text_key

if TYPE_CHECKING:
    from datasets import Dataset

    from st_l0.data.texts import Texts

_CHUNK = 4096


class LookUp:
    """Turns rows of the lookups into texts, a batch at a time; the trainer's workers get a copy each."""

    def __init__(self, corpus: Texts, queries: Texts) -> None:
        self.corpus = corpus
        self.queries = queries

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The batch with texts in place of numbers."""
        return {name: self._column(name, values) for name, values in batch.items()}

    def _column(self, name: str, values: list[Any]) -> list[Any]:
        if name == "scores":
            return values
        return (self.queries if name == "query" else self.corpus).read(values)


class DistinctTexts:
    """The distinct texts of some columns, in the order in which they come, column after column.

    Texts are told apart by digests, of which 16 bytes a cell are held while it is made; where a `LookUp`
    finds them, by their numbers, so that two that are alike come both. What is held then is 8 bytes a text.

    Args:
        dataset: The rows.
        columns: Names of columns of texts, see `text_columns`.

    Example:
        >>> from datasets import Dataset
        >>> data = Dataset.from_dict({"good": ["rain", "sun", "rain"], "bad": ["sun", "snow", "sun"]})
        >>> texts = DistinctTexts(data, ["good", "bad"])
        >>> len(texts), list(texts)
        (3, ['rain', 'sun', 'snow'])
    """

    def __init__(self, dataset: Dataset, columns: Sequence[str]) -> None:
        self._dataset, self._columns = dataset, tuple(columns)
        parts = [part for name in self._columns for part in self._cells(name)]
        cells = np.concatenate(parts) if parts else np.empty(0, np.int64)
        self._places = np.sort(np.unique(cells, return_index=True)[1])

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        """The texts, read from the data set as they come."""
        rows = len(self._dataset)
        for number, name in enumerate(self._columns):
            column = self._dataset.select_columns([name])
            first, last = np.searchsorted(self._places, (number * rows, (number + 1) * rows))
            for start in range(first, last, _CHUNK):
                places = self._places[start : min(start + _CHUNK, last)] - number * rows
                yield from column[places.tolist()][name]

    def _cells(self, name: str) -> Iterator[np.ndarray]:
        """What tells the cells of a column apart."""
        stored = self._dataset.select_columns([name]).with_format("arrow")
        for start in range(0, len(stored), _CHUNK):
            cells = stored[start : start + _CHUNK].column(0)
            if _look_up(self._dataset) is None:
                yield as_keys(text_key(text, "") for text in cells.to_pylist())
            else:
                numbers = cells.to_numpy()
                yield -1 - numbers if name == "query" else numbers  # in a place of their own


def text_columns(dataset: Dataset) -> list[str]:
    """Names of the columns that hold texts; none where something unknown makes the texts of a row."""
    if dataset.format["type"] is not None and _look_up(dataset) is None:
        return []
    kinds = ("string", "large_string") if _look_up(dataset) is None else ("int32",)
    return [name for name, feature in dataset.features.items() if getattr(feature, "dtype", None) in kinds]


def _look_up(dataset: Dataset) -> LookUp | None:
    found = dataset.format["format_kwargs"].get("transform")
    return found if isinstance(found, LookUp) else None
