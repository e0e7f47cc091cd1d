"""Texts by their ids, read from disk when they are asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from st_l0.data.arrow import build, is_hub_name, is_repository, is_saved, load_hub, load_saved
from st_l0.data.columns import Columns, lookup_fields
from st_l0.data.corpus import read_beir, read_source
from st_l0.data.parts import find_part, is_folder, located
from st_l0.data.records import (
    Document,
    Fields,
    Kind,
    as_identifier,
    id_keys,
    identifier_of,
    relevant,
    text_keys,
    text_of,
)
from st_l0.data.sources import is_dataset
from st_l0.errors import InputError
from st_l0.utils.paths import local_path
from st_l0.utils.progress import track

if TYPE_CHECKING:
    from datasets import Dataset

_NOUNS = {"corpus": "document", "queries": "query"}
_KEY_BYTES = 32
_BATCH_ROWS = 50_000


class Texts:
    """A read-only mapping from id to text, for millions of them.

    The texts stay in a memory-mapped Arrow file. In memory are the ids alone, sorted, and the row of each:
    about 100 MB for the 8.8 million passages of MS MARCO, which forked workers share and which pickle as two
    buffers. Made by `open_texts`.

    Args:
        dataset: One row for each text, with columns as `st_l0.data.records.document_of` reads them.
        source: What complaints call it.
        fields: What it holds, and in which columns; or only what, ``"corpus"`` or ``"queries"``.
        repair_latin1: Whether to undo the reading of UTF-8 as Latin-1, in each text where that can be.

    Raises:
        InputError: a column is missing, there are no rows, an id is empty or occurs twice.
    """

    def __init__(
        self, dataset: Dataset, source: str | Path, fields: Kind | Fields, *, repair_latin1: bool = False
    ) -> None:
        self.source = str(source)
        self._fields = Fields(fields) if isinstance(fields, str) else fields
        self.kind: Kind = self._fields.kind
        self._repair = repair_latin1
        # A column of nulls counts as absent.
        types = {name: getattr(feature, "dtype", None) for name, feature in dataset.features.items()}
        names = tuple(name for name in dataset.column_names if types[name] != "null")
        ids = id_keys(names, self.kind) if self._fields.id is None else (self._fields.id,)
        texts = self._fields.texts or text_keys(names, self.kind)
        if not ids or not texts or not {*ids}.union(texts) <= {*names}:
            raise InputError(
                f"{source}: has the columns {', '.join(dataset.column_names)}; give _id, and text or title"
            )
        for name in texts:
            if types[name] not in ("string", "large_string"):
                raise InputError(f"{source}: the column {name} does not hold strings; give texts")
        columns = relevant(names, self._fields)
        self._id_column = dataset.select_columns(list(ids)).with_format("arrow")
        self._texts = dataset.select_columns(list(names if columns is None else columns)).with_format(None)
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
            yield from self._ids_of(table, 0)

    def rows(self, identifiers: Sequence[str]) -> npt.NDArray[np.int32]:
        """Rows of several ids at once, for `read`; `(len(identifiers),)`.

        Raises:
            InputError: there is no such id.
        """
        positions, found = self._find(identifiers)
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
        columns = self._texts[indices]
        records = zip(*columns.values(), strict=True)
        return [
            self._text(row, dict(zip(columns, record, strict=True)))
            for row, record in zip(indices, records, strict=True)
        ]

    def _text(self, row: int, record: dict[str, Any]) -> str:
        text = text_of(f"{self.source}:{row + 1}", record, self._fields)
        if self._repair:
            try:
                return text.encode("latin-1").decode("utf-8")
            except UnicodeError:
                return text
        return text

    def _find(self, identifiers: Sequence[str]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Place of each id among the keys, and whether it is there."""
        raw = [_key(identifier.strip()) for identifier in identifiers]
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
        for start in track(starts, f"looking through {self.kind}", unit="parts", delay=2):
            table = self._id_column[start : start + _BATCH_ROWS]
            parts.append(np.array([_key(identifier) for identifier in self._ids_of(table, start)]))
        keys = np.concatenate(parts)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        twice = np.flatnonzero(keys[1:] == keys[:-1])
        if len(twice):
            first = twice[np.argmin(order[twice + 1])]  # the sort is stable: rows of one id ascend
            row = int(order[first + 1])
            [identifier] = self._ids_of(self._id_column[row : row + 1], row)
            raise InputError(
                f"{self.source}:{row + 1}: id {identifier!r} occurs already in row {order[first] + 1}"
            )
        return keys, order.astype(np.int32)

    def _ids_of(self, table: Any, start: int) -> Iterator[str]:
        """The ids of some rows, which begin at ``start``."""
        if table.num_columns > 1:
            for row, record in enumerate(table.to_pylist(), start + 1):
                yield identifier_of(f"{self.source}:{row}", record, self._fields) or ""
            return
        for row, value in enumerate(table.column(0).to_pylist(), start + 1):
            identifier = as_identifier(value)
            if identifier is None:
                raise InputError(f"{self.source}:{row}: the id is {value!r:.40}; give a string or an integer")
            yield identifier


def open_texts(
    source: str | Path | Dataset,
    kind: Kind,
    *,
    repair_latin1: bool = False,
    columns: Columns | None = None,
) -> Texts:
    """Open the documents or queries of a collection for looking up by id.

    Files of JSON lines and parquet are turned into Arrow once, in the cache of ``datasets``
    (``HF_DATASETS_CACHE``), which takes about as much disk as the file uncompressed; a file that has changed
    is read again. The other sources are Arrow already, or become it when they are downloaded.

    Args:
        source: A BEIR folder (with ``corpus.jsonl[.gz]``, ``queries.jsonl[.gz]``); a file that
            `read_documents` takes; a folder written by ``datasets.Dataset.save_to_disk``; a data set of the
            Hub such as ``"BeIR/msmarco"``, with a configuration and split of the name ``kind``; or a folder
            to which such a one was downloaded. Or a ``datasets.Dataset``.
        kind: ``"corpus"`` or ``"queries"``.
        repair_latin1: Texts that are UTF-8 read as Latin-1 (``cafÃ©``), as some of MS MARCO on the Hub are,
            become what they were (``café``); the others stay.
        columns: Where ids and texts are: the words ``corpus_id``, ``corpus_title`` and ``corpus_text``, or
            ``queries_id`` and ``queries_text``, to names of fields, see `st_l0.data.records.Fields`.

    Raises:
        InputError: there is no such source, it cannot be read, or an id occurs twice.
    """
    fields = lookup_fields(columns, kind)
    if not isinstance(source, (str, Path)):
        if not is_dataset(source):
            raise InputError(f"the {kind} are of the type {type(source).__name__}; give a path or a Dataset")
        return Texts(source, "the data set", fields, repair_latin1=repair_latin1)
    path = local_path(source)
    found = None if is_hub_name(source) else _find(path, kind)
    if found is not None:
        file, read = found
        dataset = build(_records, file, read=read, fields=tuple(fields))
        return Texts(dataset, file if path.is_dir() else source, kind, repair_latin1=repair_latin1)
    saved = path.is_dir() and is_saved(path)
    dataset = load_saved(path) if saved else load_hub(source, configuration=kind, split=kind)
    return Texts(dataset, source, fields, repair_latin1=repair_latin1)


def check_texts(source: str | Path, kind: Kind, columns: Columns | None = None) -> None:
    """Read the first record of a source that `open_texts` would read as a file; arguments as there.

    Raises:
        InputError: see `open_texts`.
    """
    path = local_path(source)
    found = _find(path, kind) if path.exists() else None
    if found is not None:
        file, read = found
        next(read(file, lookup_fields(columns, kind)))


def _find(path: Path, kind: Kind) -> tuple[Path, Callable[[Path, Fields], Iterator[Document]]] | None:
    """The file that holds the documents or queries, and its reader; ``None``: it is a data set already."""
    path = located(path)
    if not is_folder(path):
        return path, read_source
    if is_saved(path):
        return None
    file = find_part(path, kind)
    if is_repository(path) and (file is None or file.is_dir()):
        return None
    if file is not None:
        return file, read_beir
    if any(path.glob("*.parquet")):
        return path, read_source
    raise InputError(f"{path}: neither a BEIR folder (no {kind}.jsonl[.gz]) nor a saved dataset")


def _records(
    path: str, state: tuple[int, int], read: Callable[[Path, Fields], Iterator[Document]], fields: Any
) -> Iterator[dict[str, str]]:
    for document in read(Path(path), Fields(*fields)):
        yield {"_id": document.id, "text": document.text}


def _key(identifier: str) -> bytes:
    """What the index holds of an id: the id, or a digest where a fixed number of bytes could not hold it."""
    raw = identifier.encode("utf-8", "surrogatepass")
    if len(raw) <= _KEY_BYTES and b"\0" not in raw:  # numpy drops zero bytes at the end
        return raw
    return hashlib.blake2b(raw, digest_size=_KEY_BYTES).digest()
