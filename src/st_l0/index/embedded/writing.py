"""Writing a segment: of new documents, or of those that other segments hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from st_l0.index.embedded.arrays import Sink, Sinks
from st_l0.index.embedded.postings import Postings, beside, chunks
from st_l0.index.embedded.segment import LiveSegment, Segment
from st_l0.index.embedded.strings import Strings
from st_l0.index.embedded.words import write_words
from st_l0.utils.files import sync


def write_segment(segments: Sequence[LiveSegment], folder: Path | None) -> Segment:
    """Write the documents of ``segments``, in order and without the deleted ones, as one new segment.

    Args:
        segments: At least one; all of one vocabulary and one kind of id.
        folder: An empty folder, whose files are flushed to the disk; None keeps the segment in memory.

    Raises:
        InputError: a file of ``segments`` is damaged.
        OSError: the disk is full, or cannot be written; ``folder`` is then unfinished.
    """
    for live in segments:
        live.segment.prove()  # damage must not be copied to where the checksums vouch for it
    kept = [None if live.deleted is None else np.flatnonzero(live.kept()) for live in segments]
    sinks = Sinks(folder)
    try:
        for name in ("indptr", "rows", "weights"):
            _ = sinks[name]
        _write_postings([live.segment.vectors for live in segments], kept, sinks)
        if isinstance(segments[0].segment.ids, Strings):
            _write_strings(
                segments, [live.segment.ids for live in segments], sinks["id_bytes"], sinks["id_offsets"]
            )
        else:
            for live in segments:
                for start, stop in live.runs():
                    sinks["ids"].append(live.segment.ids[start:stop])  # type: ignore[index]
        texts = [live.segment.texts for live in segments]
        if any(column is not None for column in texts):
            _write_strings(segments, texts, sinks["text_bytes"], sinks["text_offsets"])
        words = [live.segment.words for live in segments if live.segment.words is not None]
        if words:
            write_words(words, kept, sinks)
        arrays = sinks.finish()
    finally:
        sinks.close()
    if folder is None:
        return Segment(arrays)
    sync(folder)
    return Segment(arrays, folder.name, sinks.checksums())


def _write_postings(
    segments: Sequence[Postings], kept: Sequence[NDArray[np.int64] | None], sinks: Sinks
) -> None:
    if len(segments) == 1 and kept[0] is None:
        sinks["indptr"].append(segments[0].indptr)
        sinks["rows"].append(segments[0].rows)
        sinks["weights"].append(segments[0].values)
        return
    sinks["indptr"].append(np.zeros(1))
    for first, last in chunks(np.sum([postings.indptr for postings in segments], axis=0)):
        chunk = beside([postings.block(first, last) for postings in segments], kept)
        sinks["indptr"].append(chunk.indptr[1:].astype(np.int64) + sinks["rows"].length)
        sinks["rows"].append(chunk.indices)
        sinks["weights"].append(chunk.data)


def _write_strings(
    segments: Sequence[LiveSegment],
    columns: Sequence[Strings | NDArray[Any] | None],
    blob: Sink,
    offsets: Sink,
) -> None:
    offsets.append(np.zeros(1))
    for live, column in zip(segments, columns, strict=True):
        strings = column if isinstance(column, Strings) else Strings.encode([None] * len(live.segment))
        for start, stop in live.runs():
            bounds = strings.offsets[start : stop + 1]
            offsets.append(bounds[1:] - bounds[0] + blob.length)
            blob.append(strings.blob[bounds[0] : bounds[-1]])
