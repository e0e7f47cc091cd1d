"""Which segments to rewrite as one, so that many small additions stay fast to make and to search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import count

from st_l0.index.embedded.segment import LiveSegment

FAN_IN = 8  # that many segments of similar size become one
SMALL = 1 << 15  # segments up to that size (postings and documents) are of one kind
MAX_SIZE = (1 << 31) - 1  # rows and positions within a segment are int32


def plan(segments: Iterable[LiveSegment]) -> list[list[LiveSegment]]:
    """Group neighbours: each group becomes one segment.

    Only the newest segments are merged, so documents stay in the order in which they were added. Each
    document is rewritten about log_8(index size / SMALL) times in all. Parts without documents are dropped.
    """
    segments = [live for live in segments if len(live)]
    start = _tail([live.segment.size for live in segments])
    return [[live] for live in segments[:start]] + pack(segments[start:])


def pack(segments: Sequence[LiveSegment]) -> list[list[LiveSegment]]:
    """Group neighbours into as few segments as ``MAX_SIZE`` allows."""
    groups: list[list[LiveSegment]] = []
    total = 0
    for live in segments:
        if groups and total + live.segment.size <= MAX_SIZE:
            groups[-1].append(live)
            total += live.segment.size
        else:
            groups.append([live])
            total = live.segment.size
    return groups


def _tail(sizes: Sequence[int]) -> int:
    """Where the newest segments begin that are to be merged; ``len(sizes)`` if none are."""
    # Behind a segment that is more than half full: two such never fit into one.
    begin = max((i + 1 for i, size in enumerate(sizes) if size > MAX_SIZE // 2), default=0)
    tiers = [_tier(size) for size in sizes]
    for start in range(begin, len(sizes)):
        tail = tiers[start:]
        if tail[0] < max(tail) or tail.count(tail[0]) >= FAN_IN:
            return start
    return len(sizes)


def _tier(size: int) -> int:
    return next(tier for tier in count() if size <= SMALL * FAN_IN**tier)
