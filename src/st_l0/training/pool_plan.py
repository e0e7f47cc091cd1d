"""What a dry run can tell of the pool of extra queries: how much of it is held, and what that takes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from st_l0.teachers.loading import split_spec
from st_l0.teachers.neighbours import NEAREST
from st_l0.teachers.pool import largest_pool
from st_l0.training.recipe import Recipe

# Distinct tokens or words of a query, where nobody has counted them.
_WORDS = 10


@dataclass(frozen=True)
class PoolPlan:
    """A pool of extra queries, before anything is read but small files.

    Attributes:
        queries: How many it holds at most.
        share: The least share of the training queries that these are; ``None`` where it is not known how many
            there can be.
        size: About the bytes that it takes on each device; ``None`` where a teacher is a live model, or
            nothing says how many texts there are.
        scores: Extra queries of a batch on a device times the documents of all, at most.
    """

    queries: int
    share: float | None
    size: int | None
    scores: int

    def in_words(self, number: int | str, device: str) -> str:
        """One line."""
        wanted = "all near ones" if number == "all" else f"{number:,} near ones"
        held = f"the {self.queries:,} or fewer that there are"
        if self.share is None:
            held = f"at most {self.queries:,}"
        elif self.share < 1:
            held = f"{self.queries:,} of them, {self.share:.0%} or more"
        size = "not known" if self.size is None else f"about {self.size / 2**30:.2f} GiB"
        return f"{wanted} a batch, out of {held} (on {device}); pool {size}"


def plan_pool(
    recipe: Recipe, documents_per_query: int, documents: int, devices: int, device: str
) -> PoolPlan:
    """Plan the pool of a recipe that has extra queries.

    Args:
        recipe: The recipe.
        documents_per_query: Of a training example.
        documents: Those of a batch on one device.
        devices: Number of them.
        device: Type of the device, such as ``"cuda"``.
    """
    teachers = recipe.teachers
    assert teachers is not None
    specs = [split_spec(spec) for spec in teachers.specs]
    shapes = {path: _vectors(path) for kind, path in specs if kind == "vectors"}
    limit, counts = recipe.data.limit, [shape[0] for shape in shapes.values() if shape is not None]
    # The vectors are of queries and documents, so that neither can be more.
    most = [] if limit is None else [limit + teachers.sentence_queries]
    all_queries = min([*counts, *most], default=None)
    largest = largest_pool(device)
    queries = largest if all_queries is None else min(largest, all_queries)
    near = NEAREST * len(specs) * documents
    number = near if teachers.extra_queries == "all" else min(near, teachers.extra_queries)
    scores = min(number, queries) * documents * devices
    if all_queries is None:
        return PoolPlan(queries, None, None, scores)
    share = queries / all_queries
    # Of vectors that nobody has told apart, those of a sampled pool are of queries, or else half of them.
    texts = min(counts) - min(largest, min(counts) // 2) if counts else None
    texts = min([one for one in (texts, limit and limit * documents_per_query) if one is not None])
    size: int | None = 8 * queries * (_WORDS + 1)  # the student's tokens
    for kind, path in specs:
        part = _size(kind, shapes.get(path), path, queries, texts)
        size = None if part is None or size is None else size + part + 4 * NEAREST * texts
    return PoolPlan(queries, share, size, scores)


def _size(kind: str, shape: tuple[int, int] | None, path: str, queries: int, documents: int) -> int | None:
    """About the bytes that a teacher holds."""
    if kind == "vectors" and shape is not None:
        return (queries + documents) * shape[1]
    if kind == "bm25" and (words := _mean_length(path)) is not None:
        return int(8 * (queries * (_WORDS + 1) + documents * (words + 1)))
    return None


def _vectors(folder: str) -> tuple[int, int] | None:
    """Texts, and bytes of each, of a folder of vectors that is there."""
    try:
        vectors = np.load(Path(folder) / "vectors.npy", mmap_mode="r")
        return len(vectors), int(vectors[:1].nbytes)
    except (OSError, ValueError, EOFError):
        return None


def _mean_length(path: str) -> float | None:
    """Words of a document, where the statistics are there."""
    try:
        return float(json.loads(Path(path).read_text(encoding="utf-8"))["mean_length"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
