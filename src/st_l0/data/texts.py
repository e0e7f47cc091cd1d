"""Texts by their ids, read from disk when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from st_l0.data.arrow import build, is_hub_name, is_repository, is_saved, load_hub, load_saved
from st_l0.data.corpus import find_beir, read_beir, read_documents
from st_l0.errors import InputError
from st_l0.utils.paths import local_path

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["corpus", "queries"]

_NOUNS = {"corpus": "document", "queries": "query"}
_FIELDS = ("title", "text")
_KEY_BYTES = 32
_BATCH_ROWS = 50_000


class Texts:
    """A read-only mapping from id to text, for millions of them.

    The texts stay in a memory-mapped Arrow file. In memory are the ids alone, sorted, and the row of each:
    about 100 MB for the 8.8 million passages of MS MARCO, which forked workers share and which pickle as two
    buffers. Made by `open_texts`.

    Args:
        dataset: One row for each text, with a column ``_id`` or ``id`` of strings or integers, and one or
            both of ``title`` and ``text``, which are joined by one space.
        source: What complaints call it.
        kind: What it holds.
        repair_latin1: Whether to undo the reading of UTF-8 as Latin-1, in each text where that can be.

    Raises:
        InputError: a column is missing, there are no rows, an id is empty or occurs twice.
    """

    def __init__(
        self, dataset: Dataset, source: str | Path, kind: Kind, *, repair_latin1: bool = False
    ) -> None:
        self.source = str(source)
        self.kind = kind
        self._repair = repair_latin1
        id_column = next((name for name in ("_id", "id") if name in dataset.column_names), None)
        fields = [name for name in _FIELDS if name in dataset.column_names]
        if id_column is None or not fields:
            raise InputError(
                f"{source}: has the columns {', '.join(dataset.column_names)}; give _id, and text or title"
            )
        for name in fields:
            if getattr(dataset.features[name], "dtype", None) not in ("string", "large_string"):
                raise InputError(f"{source}: the column {name} does not hold strings; give texts")
        self._id_column = dataset.select_columns(id_column).with_format("arrow")
        self._texts = dataset.select_columns(fields).with_format(None)
        self._keys, self._rows = self._index()

    def __len__(self) -> int:
        """Number of texts."""
        return len(self._rows)

    def __contains__(self, identifier: object) -> bool:
        """Whether there is a text of this id."""
        return isinstance(identifier, str) and bool(self._find([identifier])[1][0])

    def __getitem__(self, identifier: str) -> str:
        """The text of an id.

        Raises:
            InputError: there is no such id.
        """
        return self.read(self.rows([identifier]))[0]

    def ids(self) -> Iterator[str]:
        """All ids, in the order of the source."""
        for table in self._id_column.iter(batch_size=_BATCH_ROWS):
            yield from map(str, table.column(0).to_pylist())

    def rows(self, identifiers: Sequence[str]) -> npt.NDArray[np.int32]:
        """Rows of several ids at once, for `read`; `(len(identifiers),)`.

        Raises:
            InputError: there is no such id.
        """
        positions, found = self._find(identifiers)
        if not found.all():  # readers of files drop white space around ids, which rows may still have
            bare, there = self._find([identifier.strip() for identifier in identifiers])
            positions, found = np.where(found, positions, bare), found | there
        if not found.all():
            missing = identifiers[int(np.argmin(found))]
            raise InputError(
                f"no {_NOUNS[self.kind]} {missing!r:.40} in {self.source}; give the {self.kind} it is from"
            )
        return self._rows[positions]

    def read(self, rows: Iterable[int]) -> list[str]:
        """Texts of several rows, in their order.

        Raises:
            InputError: a row has neither title nor text.
        """
        indices = [int(row) for row in rows]
        columns = self._texts[indices].values()
        return [
            self._text(row, fields) for row, fields in zip(indices, zip(*columns, strict=True), strict=True)
        ]

    def _text(self, row: int, fields: Sequence[str | None]) -> str:
        if all(field is None for field in fields):
            raise InputError(f"{self.source}:{row + 1}: has no text; give every row one (it may be empty)")
        text = " ".join(field for field in fields if field)
        if self._repair:
            try:
                return text.encode("latin-1").decode("utf-8")
            except UnicodeError:
                return text
        return text

    def _find(self, identifiers: Sequence[str]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Place of each id among the keys, and whether it is there."""
        raw = [_key(identifier) for identifier in identifiers]
        # In the type of the index, or numpy would convert the whole index; what that cuts off is not in it.
        keys = np.array(raw, dtype=self._keys.dtype)
        whole = np.fromiter(map(len, raw), np.intp, len(raw)) <= self._keys.itemsize
        positions = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return positions, (self._keys[positions] == keys) & whole

    def _index(self) -> tuple[npt.NDArray[np.bytes_], npt.NDArray[np.int32]]:
        """Sorted keys, and the row of each."""
        starts = range(0, len(self._id_column), _BATCH_ROWS)
        if not starts:
            raise InputError(f"{self.source}: is empty; give at least one {_NOUNS[self.kind]}")
        parts = []
        for start in tqdm(starts, desc=f"Indexing {self.kind}", leave=False, delay=2, disable=None):
            values = self._id_column[start : start + _BATCH_ROWS].column(0).to_pylist()
            parts.append(np.array([self._checked(row, value) for row, value in enumerate(values, start)]))
        keys = np.concatenate(parts)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            first = twice[np.argmin(order[twice + 1])]  # the sort is stable: rows of one id ascend
            row = int(order[first + 1])
            identifier = self._id_column[row].column(0)[0].as_py()
            raise InputError(
                f"{self.source}:{row + 1}: id {str(identifier)!r} occurs already in row {order[first] + 1}"
            )
        return keys, order.astype(np.int32)

    def _checked(self, row: int, value: Any) -> bytes:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise InputError(f"{self.source}:{row + 1}: the id is {value!r:.40}; give a string or an integer")
        return _key(str(value))


def open_texts(source: str | Path, kind: Kind, *, repair_latin1: bool = False) -> Texts:
    """Open the documents or queries of a collection for looking up by id.

    Files of JSON lines and parquet are turned into Arrow once, in the cache of ``datasets``
    (``HF_DATASETS_CACHE``), which takes about as much disk as the file uncompressed; a file that has changed
    is read again. The other sources are Arrow already, or become it when they are downloaded.

    Args:
        source: A BEIR folder (with ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]``); a file that
            `read_documents` takes; a folder written by ``datasets.Dataset.save_to_disk``; a data set of the
            Hub such as ``"BeIR/msmarco"``, with a configuration and split of the name ``kind``; or a folder
            to which such a one was downloaded.
        kind: ``"corpus"`` or ``"queries"``.
        repair_latin1: Texts that are UTF-8 read as Latin-1 (``cafÃ©``), as some of MS MARCO on the Hub are,
            become what they were (``café``); the others stay.

    Raises:
        InputError: there is no such source, it cannot be read, or an id occurs twice.
    """
    path = local_path(source)
    if is_hub_name(source):
        return Texts(_load(source, kind), source, kind, repair_latin1=repair_latin1)
    if not path.is_dir():
        return Texts(build(_records, path), source, kind, repair_latin1=repair_latin1)
    if is_saved(path):
        return Texts(load_saved(path), source, kind, repair_latin1=repair_latin1)
    file = find_beir(path, f"{kind}.jsonl")
    if file is not None:
        return Texts(build(_beir_records, file), file, kind, repair_latin1=repair_latin1)
    if is_repository(path):
        return Texts(_load(path, kind), source, kind, repair_latin1=repair_latin1)
    raise InputError(f"{path}: neither a BEIR folder (no {kind}.jsonl[.gz]) nor a saved dataset")


def _load(source: str | Path, kind: Kind) -> Dataset:
    return load_hub(source, configuration=kind, split=kind)


def _records(path: str, state: tuple[int, int]) -> Iterator[dict[str, str]]:
    for document in read_documents(path):
        yield {"_id": document.id, "text": document.text}


def _beir_records(path: str, state: tuple[int, int]) -> Iterator[dict[str, str]]:
    for document in read_beir(Path(path)):
        yield {"_id": document.id, "text": document.text}


def _key(identifier: str) -> bytes:
    """What the index holds of an id: the id, or a digest where a fixed number of bytes could not hold it."""
    raw = identifier.encode("utf-8", "surrogatepass")
    if len(raw) <= _KEY_BYTES and b"\0" not in raw:  # numpy drops zero bytes at the end
        return raw
    return hashlib.blake2b(raw, digest_size=_KEY_BYTES).digest()
