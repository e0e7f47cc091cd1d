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
from st_l0.index.embedded.arrays import read_array, write_array
from st_l0.index.embedded.segment import LiveSegment, Segment, write_segment
from st_l0.index.embedded.snapshot import Snapshot
from st_l0.utils.files import replace_file, sync

FORMAT, VERSION = "st_l0-index", 1
LOCK_SECONDS = 60.0
_LOCK = ".lock"
_OURS = re.compile(
    r"segment-[0-9a-f]{32}(\.deleted-[0-9a-f]{8}\.npy)?|\.manifest\.json\.new-[0-9a-f]{8}|\.lock"
)
_REFUSED = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}


class Store(Protocol):
    """Where snapshots are kept."""

    def writing(self) -> AbstractContextManager[None]:
        """Be the only writer for a while."""

    def load(self, known: Snapshot) -> Snapshot:
        """The newest snapshot; segments that ``known`` has open are shared."""

    def settle(self, segments: Sequence[LiveSegment]) -> LiveSegment:
        """Make one segment of several, stored but not published; one that is stored already stays."""

    def publish(self, snapshot: Snapshot) -> Snapshot:
        """Make a snapshot the newest, all at once; gives it as stored."""


def _stays(segments: Sequence[LiveSegment]) -> bool:
    """Whether there is nothing to merge and little to drop."""
    return len(segments) == 1 and 2 * len(segments[0]) >= len(segments[0].segment)


class Memory:
    """An index that lives as long as its object."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock."""
        with self._lock:
            yield

    def load(self, known: Snapshot) -> Snapshot:
        """The snapshot."""
        return self._snapshot

    def settle(self, segments: Sequence[LiveSegment]) -> LiveSegment:
        """Merge if there is a reason to."""
        return segments[0] if _stays(segments) else LiveSegment(write_segment(segments, None))

    def publish(self, snapshot: Snapshot) -> Snapshot:
        """Keep the snapshot."""
        self._snapshot = snapshot
        return snapshot


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

    def create(self, snapshot: Snapshot) -> None:
        """Make an index of ``snapshot``, unless another process was faster."""
        with self.writing(create=True):
            if not self.exists():
                self.publish(snapshot)

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

    def load(self, known: Snapshot) -> Snapshot:
        """Map the snapshot that the manifest names."""
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

    def settle(self, segments: Sequence[LiveSegment]) -> LiveSegment:
        """Write what is new or to be merged, not yet published."""
        if _stays(segments) and segments[0].segment.name is not None:
            return segments[0]
        return self.write(segments)

    def write(self, segments: Sequence[LiveSegment]) -> LiveSegment:
        """Write segments as one new segment, not yet published."""
        folder = self.path / f"segment-{uuid.uuid4().hex}"
        folder.mkdir()
        try:
            return LiveSegment(write_segment(segments, folder))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def publish(self, snapshot: Snapshot) -> Snapshot:
        """Replace the manifest, then remove what it no longer names."""
        snapshot = replace(snapshot, segments=tuple(self._with_file(live) for live in snapshot.segments))
        entries = [
            live.segment.describe()
            | {
                "deleted": live.deleted_name,
                "deleted_rows": 0 if live.deleted is None else len(live.deleted),
            }
            for live in snapshot.segments
        ]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "vocabulary_size": snapshot.vocabulary_size,
            "id_kind": snapshot.id_kind,
            "metadata": snapshot.metadata,
            "segments": entries,
        }
        sync(self.path)
        with replace_file(self._manifest) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        self._clean()
        return snapshot

    def _with_file(self, live: LiveSegment) -> LiveSegment:
        if live.deleted is None or live.deleted_name is not None:
            return live
        name = f"{live.segment.name}.deleted-{uuid.uuid4().hex[:8]}.npy"
        write_array(self.path / name, live.deleted)
        return LiveSegment(live.segment, live.deleted, name)

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

    def _map(self, manifest: dict[str, Any], known: Snapshot) -> Snapshot:
        opened = {live.segment.name: live for live in known.segments}
        segments = []
        for entry in manifest["segments"]:
            live = opened.get(entry["name"])
            if live is None:
                folder = self.path / entry["name"]
                live = LiveSegment(Segment.open(folder, manifest["vocabulary_size"], entry))
            if live.deleted_name != entry["deleted"]:
                deleted = read_array(self.path / entry["deleted"], "<i4", entry["deleted_rows"])
                live = LiveSegment(live.segment, deleted, entry["deleted"])
            segments.append(live)
        return Snapshot(
            manifest["vocabulary_size"], manifest["id_kind"], dict(manifest["metadata"]), tuple(segments)
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
