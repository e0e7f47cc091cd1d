"""Where the files of a collection are: in a folder, or in a zip archive as it was downloaded.

A file in an archive is a path through it, ``scifact.zip/scifact/corpus.jsonl``, and is never unpacked. Paths
are what `st_l0.utils.paths.input_path` gives, so all of it may lie at an address of fsspec.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from st_l0.errors import InputError
from st_l0.utils.paths import is_remote

_BLOCK = 1 << 20
_ENDS = (".jsonl", ".json", ".ndjson", ".tsv", ".csv", ".parquet")
_JUDGEMENT_ENDS = (".tsv", ".txt", ".trec", ".qrels", ".csv", ".jsonl", ".json", ".parquet")


def archive_of(path: Path) -> Path | None:
    """The zip archive that a path is, or leads through."""
    places = (path, *path.parents)
    return next((place for place in places if place.suffix.lower() == ".zip" and place.is_file()), None)


def located(path: Path) -> Path:
    """The same path; of an archive, the one collection, or else the one file, that is in it.

    Raises:
        InputError: the archive is damaged, or holds several collections, or neither collection nor one file.
    """
    if archive_of(path) != path:
        return path
    try:
        with zipfile.ZipFile(_source(path)) as archive:
            names = [Path(name) for name in archive.namelist() if not name.endswith("/")]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read as zip ({error}); the file may be damaged") from None
    files = [name for name in names if name.parts[0] != "__MACOSX" and not name.name.startswith(".")]
    corpora = _names("corpus", _ENDS)
    folders = sorted({path / name.parent.as_posix() for name in files if name.name in corpora})
    if len(folders) > 1:
        raise InputError(f"{path}: holds several collections; give one, such as {folders[0]}")
    if folders:
        return folders[0]
    if len(files) == 1:
        return path / files[0].as_posix()
    raise InputError(f"{path}: holds no corpus.jsonl, and {len(files)} files; give a collection or one file")


def is_folder(path: Path) -> bool:
    """Whether a path is a folder, be it in an archive."""
    return _entry(path).is_dir()


def is_there(path: Path) -> bool:
    """Whether there is a file or folder, be it in an archive."""
    return _entry(path).exists()


def open_bytes(path: Path) -> BinaryIO:
    """Open a file for reading, be it in an archive; decompressed if its name ends in ``.gz``."""
    if archive_of(path) is not None:
        stream = cast(BinaryIO, _entry(path).open("rb"))
        return cast(BinaryIO, gzip.open(stream)) if path.suffix == ".gz" else stream
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(_source(path)))
    return cast(BinaryIO, _source(path)) if is_remote(path) else path.open("rb")


def _source(path: Path) -> Path | BinaryIO:
    """What opens a file: its path; or, at an address, a stream, with a buffer since fsspec's reads slowly."""
    if not is_remote(path):
        return path
    return cast(BinaryIO, io.BufferedReader(path.open("rb"), _BLOCK))


def find_part(folder: Path, name: str) -> Path | None:
    """The file of the ``corpus`` or the ``queries`` of a collection, or its folder of parquet files."""
    files = (folder / file for file in _names(name, _ENDS))
    found = next(filter(is_there, files), None)
    shards = folder / name
    return shards if found is None and shards.is_dir() and any(shards.glob("*.parquet")) else found


def find_judgements(folder: Path, split: str) -> Path:
    """The file of judgements of a collection.

    Raises:
        InputError: there is none; the message says which others there are.
    """
    place = folder / "qrels"
    found = next((place / name for name in _names(split, _JUDGEMENT_ENDS) if is_there(place / name)), None)
    if found is not None:
        return found
    names = [entry.name for entry in _entry(place).iterdir()] if is_folder(place) else []
    shards = [name for name in names if name.endswith(".parquet") and name.split("-")[0] == split]
    if len(shards) == 1:  # as on the Hub: test-00000-of-00001.parquet
        return place / shards[0]
    splits = sorted({_split_of(name) for name in names} - {""})
    where = f"splits here: {', '.join(splits)}" if splits else "no split is here"
    raise InputError(f"{place / split}.tsv: no such file; {where}")


def _split_of(name: str) -> str:
    end = next((end for end in _JUDGEMENT_ENDS if name.removesuffix(".gz").endswith(end)), None)
    bare = "" if end is None else name.removesuffix(".gz").removesuffix(end)
    return bare.split("-0")[0] if end == ".parquet" else bare


def _names(stem: str, ends: tuple[str, ...]) -> list[str]:
    """Names that a file may have, the most common one first."""
    return [
        f"{stem}{end}{packed}" for end in ends for packed in ("", ".gz") if end != ".parquet" or not packed
    ]


def _entry(path: Path) -> Path | zipfile.Path:
    archive = archive_of(path)
    if archive is None:
        return path
    try:
        whole = zipfile.Path(_source(archive))
        return whole if path == archive else whole.joinpath(path.relative_to(archive).as_posix())
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"{archive}: cannot be read as zip ({error}); the file may be damaged") from None
