"""The manifest of a folder: which files hold the index, how large they are, and their checksums.

It ends with a checksum of itself. One without it was written before there were any, and so were its arrays.
That needs no other version: the arrays are the same, and a reader of that time passes over the checksums.
Unknown fields are refused, so that a flipped bit in the name of a field does not turn the checks off.
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from st_l0.errors import InputError
from st_l0.index.embedded.bm25 import WordSettings
from st_l0.index.embedded.checksums import damaged
from st_l0.index.embedded.merging import MAX_SIZE
from st_l0.index.embedded.segment import array_lengths
from st_l0.index.protocol import BM25, as_weight

FORMAT = "st_l0-index"
VERSION, WITH_WORDS = (
    1,
    2,
)  # a reader that knows no words must not open, and then merge, an index that has them
OURS = re.compile(
    r"segment-[0-9a-f]{32}(\.deleted-[0-9a-f]{8}\.npy)?|\.manifest\.json\.new-[0-9a-f]{8}"
    r"|(\.filling)?\.lock|\.begun"
)
_FIELDS = {"format", "version", "vocabulary_size", "id_kind", "metadata", "segments"}
_ENTRY_FIELDS = {"name", "documents", "postings", "id_bytes", "text_bytes", "deleted", "deleted_rows"}
_CHECKSUM_FIELDS = {"checksums", "deleted_checksums"}


def parse(path: Path, raw: bytes) -> dict[str, Any]:
    """Read a manifest; ``path`` is where it comes from.

    Raises:
        InputError: It is none, is damaged, or is of another version.
    """
    try:
        manifest = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise damaged(path, "not JSON") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise InputError(f"{path} is not the manifest of an index: give another path")
    if manifest.get("version") not in (VERSION, WITH_WORDS):
        raise InputError(
            f"{path}: format version {manifest.get('version')!r} is not supported "
            f"(only {VERSION} and {WITH_WORDS}): use the version of st-l0 that wrote it"
        )
    if "checksum" in manifest and raw != seal(manifest):
        raise damaged(path, "its checksum differs")
    if not _valid(manifest):
        raise damaged(path, "unexpected fields")
    return manifest


def seal(manifest: dict[str, Any]) -> bytes:
    """A manifest as the bytes of its file, with a checksum of all else at its end."""
    content = {key: value for key, value in manifest.items() if key != "checksum"}
    content["checksum"] = zlib.crc32(json.dumps(content, indent=1).encode())
    return json.dumps(content, indent=1).encode()


def _valid(manifest: dict[str, Any]) -> bool:
    segments, size, kind = manifest.get("segments"), manifest.get("vocabulary_size"), manifest.get("id_kind")
    sealed, words = "checksum" in manifest, manifest["version"] == WITH_WORDS
    return (
        manifest.keys() - {"checksum"} == (_FIELDS | {"words"} if words else _FIELDS)
        and (not words or (sealed and _valid_words(manifest["words"])))
        and isinstance(segments, list)
        and isinstance(manifest["metadata"], dict)
        and (size is None or _is_count(size))
        and (not segments or (size is not None and kind in ("str", "int")))
        and all(isinstance(entry, dict) and _valid_entry(entry, kind, sealed, words) for entry in segments)
    )


def _valid_entry(entry: dict[str, Any], kind: object, sealed: bool, words: bool) -> bool:
    names = [entry.get("name"), *([entry["deleted"]] if entry.get("deleted") is not None else [])]
    fields = _ENTRY_FIELDS | (_CHECKSUM_FIELDS if sealed else set()) | ({"words"} if words else set())
    return (
        entry.keys() == fields
        and all(isinstance(name, str) and OURS.fullmatch(name) for name in names)
        and all(_is_count(entry[key]) for key in ("documents", "postings", "deleted_rows"))
        and all(entry[key] is None or _is_count(entry[key]) for key in ("id_bytes", "text_bytes"))
        and max(entry["documents"], entry["postings"]) <= MAX_SIZE
        and (entry["id_bytes"] is None) == (kind == "int")
        and (not words or _valid_sizes(entry["words"]))
        and (not sealed or _valid_checksums(entry))
    )


def _valid_sizes(words: object) -> bool:
    return (
        isinstance(words, dict)
        and words.keys() == {"words", "bytes", "postings", "large"}
        and all(_is_count(size) and size <= MAX_SIZE for size in words.values())
    )


def _valid_words(words: object) -> bool:
    try:
        read_words(words)
    except (InputError, TypeError, KeyError, AttributeError):
        return False
    return True


def read_words(words: Any) -> WordSettings:
    """The settings that `describe_words` gave."""
    bm25 = BM25(**{field.name: words[field.name] for field in fields(BM25)})
    weight = None if words["weight"] is None else as_weight(words["weight"])
    if not isinstance(words["analyzer"], str) or len(words) != len(fields(BM25)) + 2:
        raise TypeError("unexpected fields")
    return WordSettings(bm25, words["analyzer"], weight)


def describe_words(words: WordSettings) -> dict[str, Any]:
    """The settings of words, for a manifest."""
    return asdict(words.bm25) | {"analyzer": words.analyzer, "weight": words.weight}


def _valid_checksums(entry: dict[str, Any]) -> bool:
    arrays, deleted = entry["checksums"], entry["deleted_checksums"]
    return (
        arrays is None or (isinstance(arrays, dict) and arrays.keys() == array_lengths(0, entry).keys())
    ) and all(
        values is None or (isinstance(values, list) and all(map(_is_count, values)))
        for values in (deleted, *(arrays or {}).values())
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
