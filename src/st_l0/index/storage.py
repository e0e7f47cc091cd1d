"""Where an index lives: in memory, or in a folder that is whole at every moment.

A folder holds ``manifest.json`` and immutable files that it names: a folder a segment, and a file of
deleted rows for a segment that has any. New files are written beside and flushed first; replacing the
manifest then publishes them at once. What no manifest names is left over from a crash or a merge: readers
never look at it, and the next writer removes it.
"""

from __future__ import annotations

import errno
import json
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout

from st_l0.errors import InputError
from st_l0.files import replace_file, sync
from st_l0.index.arrays import read_array, write_array
from st_l0.index.segment import Part, Segment, write_segment
from st_l0.index.state import State

FORMAT, VERSION = "st_l0-index", 1
LOCK_SECONDS = 60.0
_LOCK = ".lock"
_OURS = re.compile(
    r"segment-[0-9a-f]{32}(\.deleted-[0-9a-f]{8}\.npy)?|\.manifest\.json\.new-[0-9a-f]{8}|\.lock"
)
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class Store(Protocol):
    """Where states are kept."""

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer for a while."""

    def load(self, known: State) -> State:
        """The newest state; segments that ``known`` has open are shared."""

    def settle(self, parts: Sequence[Part]) -> Part:
        """Make one part of several, stored but not published; one that is stored already stays."""

    def publish(self, state: State) -> State:
        """Make a state the newest, all at once; gives it as stored."""


def _stays(parts: Sequence[Part]) -> bool:
    """Whether there is nothing to merge and little to drop."""
    return len(parts) == 1 and 2 * len(parts[0]) >= len(parts[0].segment)


class Memory:
    """An index that lives as long as its object."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._lock = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock."""
        with self._lock:
            yield

    def load(self, known: State) -> State:
        """The state."""
        return self._state

    def settle(self, parts: Sequence[Part]) -> Part:
        """Merge if there is a reason to."""
        return parts[0] if _stays(parts) else Part(write_segment(parts, None))

    def publish(self, state: State) -> State:
        """Keep the state."""
        self._state = state
        return state


class Folder:
    """An index in a folder.

    Raises:
        InputError: ``path`` is something else than an index or a place for a new one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._manifest = path / "manifest.json"
        if not self.exists() and path.exists():
            others = path.is_dir() and not all(_OURS.fullmatch(entry.name) for entry in path.iterdir())
            if others or not path.is_dir():
                raise InputError(f"{path} exists and is not an index: give another path")

    def exists(self) -> bool:
        """Whether there is an index."""
        return self._manifest.is_file()

    def create(self, state: State) -> None:
        """Make an index of ``state``, unless another process was faster."""
        with self.writing(create=True):
            if not self.exists():
                self.publish(state)

    @contextmanager
    def writing(self, create: bool = False) -> Iterator[None]:
        """Hold the lock file; on entry, what a crash left over is removed."""
        if not (create or self.exists()):
            raise self._missing()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with FileLock(self.path / _LOCK, timeout=LOCK_SECONDS):
                self._clean()
                yield
        except Timeout as error:
            raise InputError(
                f"{self.path}: another process is writing to the index (waited {LOCK_SECONDS:g} s): try later"
            ) from error
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            raise InputError(f"{self.path}: cannot write to the index ({error.strerror})") from error

    def load(self, known: State) -> State:
        """Map the state that the manifest names."""
        while True:
            raw, manifest = self._read()
            try:
                return self._map(manifest, known)
            except FileNotFoundError as error:
                # A writer may have merged a segment away in the meantime; then the manifest is another.
                if self._read()[0] == raw:
                    raise InputError(
                        f"{error.filename} is missing: restore the index from a copy or build it again"
                    ) from error

    def settle(self, parts: Sequence[Part]) -> Part:
        """Write what is new or to be merged, not yet published."""
        if _stays(parts) and parts[0].segment.name is not None:
            return parts[0]
        return self.write(parts)

    def write(self, parts: Sequence[Part]) -> Part:
        """Write parts as one new segment, not yet published."""
        folder = self.path / f"segment-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            return Part(write_segment(parts, folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def publish(self, state: State) -> State:
        """Replace the manifest, then remove what it no longer names."""
        state = replace(state, parts=tuple(self._with_file(part) for part in state.parts))
        entries = [
            part.segment.describe()
            | {
                "deleted": part.deleted_name,
                "deleted_rows": 0 if part.deleted is None else len(part.deleted),
            }
            for part in state.parts
        ]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "vocabulary_size": state.vocabulary_size,
            "id_kind": state.id_kind,
            "metadata": state.metadata,
            "segments": entries,
        }
        sync(self.path)
        with replace_file(self._manifest) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        self._clean()
        return state

    def _with_file(self, part: Part) -> Part:
        if part.deleted is None or part.deleted_name is not None:
            return part
        name = f"{part.segment.name}.deleted-{uuid.uuid4().hex[:8]}.npy"
        write_array(self.path / name, part.deleted)
        return Part(part.segment, part.deleted, name)

    def _clean(self) -> None:
        """Remove what the manifest does not name; only for the one who holds the lock."""
        entries = self._read()[1]["segments"] if self.exists() else []
        needed = {_LOCK} | {entry[key] for entry in entries for key in ("name", "deleted")}
        for path in self.path.iterdir():
            if path.name not in needed and _OURS.fullmatch(path.name):
                # What cannot be removed now (open elsewhere, on Windows) is left to the next writer.
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _missing(self) -> InputError:
        return InputError(f"{self.path}: there is no index here (no manifest.json): check the path")

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"{self._manifest} is damaged ({reason}): restore the index from a copy or build it again"
        )

    def _read(self) -> tuple[bytes, dict[str, Any]]:
        try:
            raw = self._manifest.read_bytes()
        except FileNotFoundError as error:
            raise self._missing() from error
        try:
            manifest = json.loads(raw)
        except ValueError as error:
            raise self._damaged("not JSON") from error
        if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
            raise InputError(f"{self._manifest} is not the manifest of an index: give another path")
        if manifest.get("version") != VERSION:
            raise InputError(
                f"{self._manifest}: format version {manifest.get('version')!r} is not supported "
                f"(only {VERSION}): use the version of st-l0 that wrote it"
            )
        if not _valid(manifest):
            raise self._damaged("unexpected fields")
        return raw, manifest

    def _map(self, manifest: dict[str, Any], known: State) -> State:
        opened = {part.segment.name: part for part in known.parts}
        parts = []
        for entry in manifest["segments"]:
            part = opened.get(entry["name"])
            if part is None:
                folder = self.path / entry["name"]
                part = Part(Segment.open(folder, manifest["vocabulary_size"], entry))
            if part.deleted_name != entry["deleted"]:
                deleted = read_array(self.path / entry["deleted"], "<i4", entry["deleted_rows"])
                part = Part(part.segment, deleted, entry["deleted"])
            parts.append(part)
        return State(
            manifest["vocabulary_size"], manifest["id_kind"], dict(manifest["metadata"]), tuple(parts)
        )


def _valid(manifest: dict[str, Any]) -> bool:
    segments, size = manifest.get("segments"), manifest.get("vocabulary_size")
    return (
        isinstance(segments, list)
        and isinstance(manifest.get("metadata"), dict)
        and (size is None or _is_count(size))
        and (not segments or (size is not None and manifest.get("id_kind") in ("str", "int")))
        and "id_kind" in manifest
        and all(isinstance(entry, dict) and _valid_entry(entry) for entry in segments)
    )


def _valid_entry(entry: dict[str, Any]) -> bool:
    names = [entry.get("name"), *([entry["deleted"]] if entry.get("deleted") is not None else [])]
    return (
        all(isinstance(name, str) and _OURS.fullmatch(name) for name in names)
        and all(_is_count(entry.get(key)) for key in ("documents", "postings", "deleted_rows"))
        and all(entry.get(key, 0) is None or _is_count(entry.get(key)) for key in ("id_bytes", "text_bytes"))
        and "deleted" in entry
    )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
