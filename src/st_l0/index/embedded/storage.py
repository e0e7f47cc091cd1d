"""Where an index lives: in memory, or in a folder that is whole at every moment.

A folder holds ``manifest.json`` and immutable files that it names: a folder a segment, and a file of
deleted rows for a segment that has any. New files are written beside and flushed first; replacing the
manifest then publishes them at once. What the manifest does not name is left over from a crash or a merge:
readers never look at it, and the next writer removes it. Without a manifest nothing is removed, unless a mark
says that the first one was still to come.
"""

from __future__ import annotations

import errno
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from st_l0.errors import InputError, is_machines
from st_l0.index.embedded import manifests
from st_l0.index.embedded.arrays import open_array, write_array
from st_l0.index.embedded.checksums import damaged
from st_l0.index.embedded.manifests import OURS
from st_l0.index.embedded.segment import LiveSegment, Segment
from st_l0.index.embedded.snapshot import Snapshot
from st_l0.index.embedded.writing import write_segment
from st_l0.utils.files import replace_file, sync
from st_l0.utils.locks import hold
from st_l0.utils.paths import local_path

LOCK_SECONDS = 60.0
_LOCK, _BEGUN = ".lock", ".begun"
FILLING = ".filling.lock"  # of one who adds a whole corpus, step by step
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

    def __getstate__(self) -> Snapshot:
        return self._snapshot  # a copy has a lock of its own

    def __setstate__(self, snapshot: Snapshot) -> None:
        self.__init__(snapshot)  # type: ignore[misc]

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

    def __init__(self, path: str | Path) -> None:
        self.path = path = local_path(path)
        self._manifest = path / "manifest.json"
        if not self.exists() and path.exists():
            others = path.is_dir() and not all(OURS.fullmatch(entry.name) for entry in path.iterdir())
            if (others and not self.exists()) or not path.is_dir():
                raise InputError(f"{path} exists and is not an index: give another path")
            if self._bereft():
                raise self._missing()

    def exists(self) -> bool:
        """Whether there is an index."""
        return self._manifest.is_file()

    def _bereft(self) -> bool:
        """Whether there are segments whose manifest is lost."""
        names = {entry.name for entry in self.path.iterdir()} if self.path.is_dir() else set()
        # Asked last: another process publishes first and then removes its mark.
        return (
            _BEGUN not in names and any(name.startswith("segment-") for name in names) and not self.exists()
        )

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
            what = f"is writing to the index (waited {LOCK_SECONDS:g} s)"
            with hold(self.path / _LOCK, what, seconds=LOCK_SECONDS, cure="try later"):
                new = not self.exists()
                if new and self._bereft():
                    raise self._missing()
                self._clean()
                if new:
                    (self.path / _BEGUN).touch()  # what is written now may be removed after a crash
                yield
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            raise InputError(f"{self.path}: cannot write to the index ({error.strerror})") from error

    def load(self, known: Snapshot) -> Snapshot:
        """Map the snapshot that the manifest names."""
        while True:
            raw, manifest = self.read()
            try:
                return self._map(manifest, known)
            except FileNotFoundError as error:
                # A writer may have merged a segment away in the meantime; then the manifest is another.
                if self.read()[0] == raw:
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
                "deleted_checksums": live.deleted_checksums,
            }
            for live in snapshot.segments
        ]
        manifest = {
            "format": manifests.FORMAT,
            "version": manifests.VERSION if snapshot.words is None else manifests.WITH_WORDS,
            "vocabulary_size": snapshot.vocabulary_size,
            "id_kind": snapshot.id_kind,
            "metadata": snapshot.metadata,
            "segments": entries,
        }
        if snapshot.words is not None:
            manifest["words"] = manifests.describe_words(snapshot.words)
        sync(self.path)
        with replace_file(self._manifest) as temporary:
            temporary.write_bytes(manifests.seal(manifest))
        self._clean()
        return snapshot

    def _with_file(self, live: LiveSegment) -> LiveSegment:
        if live.deleted is None or live.deleted_name is not None:
            return live
        name = f"{live.segment.name}.deleted-{uuid.uuid4().hex[:8]}.npy"
        return LiveSegment(live.segment, live.deleted, name, write_array(self.path / name, live.deleted))

    def _clean(self) -> None:
        """Remove what the manifest does not name; only for the one who holds the lock."""
        entries = self.read()[1]["segments"] if self.exists() else []
        needed = {_LOCK, FILLING} | {entry[key] for entry in entries for key in ("name", "deleted")}
        for path in self.path.iterdir():
            if path.name not in needed and OURS.fullmatch(path.name):
                # What cannot be removed now (open elsewhere, on Windows) is left to the next writer.
                with suppress(OSError):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _missing(self) -> InputError:
        if self._bereft():
            return InputError(
                f"{self._manifest} is missing, but there are segments: restore it from a copy "
                "or build the index again in another folder"
            )
        return InputError(f"{self.path}: there is no index here (no manifest.json): check the path")

    def read(self) -> tuple[bytes, dict[str, Any]]:
        """The manifest, as bytes and parsed.

        Raises:
            InputError: There is none, or it cannot be used.
        """
        try:
            raw = self._manifest.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise self._missing() from error
        except OSError as error:
            if is_machines(error):
                raise
            raise InputError(f"{self._manifest}: cannot be read ({error.strerror}); restore it") from error
        return raw, manifests.parse(self._manifest, raw)

    def _map(self, manifest: dict[str, Any], known: Snapshot) -> Snapshot:
        opened = {live.segment.name: live for live in known.segments}
        segments = []
        for entry in manifest["segments"]:
            live = opened.get(entry["name"])
            if live is None:
                folder = self.path / entry["name"]
                live = LiveSegment(Segment.open(folder, manifest["vocabulary_size"], entry))
            if live.deleted_name != entry["deleted"]:
                deleted = read_deleted(self.path, entry)
                live = LiveSegment(live.segment, deleted, entry["deleted"], entry.get("deleted_checksums"))
            segments.append(live)
        return Snapshot(
            manifest["vocabulary_size"],
            manifest["id_kind"],
            dict(manifest["metadata"]),
            tuple(segments),
            manifests.read_words(manifest["words"]) if "words" in manifest else None,
        )


def read_deleted(path: Path, entry: dict[str, Any]) -> NDArray[np.int32]:
    """The deleted rows of a segment that has any, proven to be ascending rows of it.

    Raises:
        InputError: The file is damaged.
        FileNotFoundError: There is none.
    """
    guard = open_array(path / entry["deleted"], "<i4", entry["deleted_rows"], entry.get("deleted_checksums"))
    guard.prove()
    rows = guard.array
    if len(rows) and (rows[0] < 0 or rows[-1] >= entry["documents"] or (rows[1:] <= rows[:-1]).any()):
        raise damaged(guard.path, "rows out of range or order")
    return rows
