"""Indexes that are made for one measurement and go when it is over."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from st_l0.index.opensearch.engine import OpenSearchIndex
from st_l0.index.protocol import Index


@contextmanager
def scratch(target: str, **options: Any) -> Iterator[Callable[[], Index]]:
    """Give a function that makes new, empty indexes on a cluster; they are removed when the body ends.

    It is what evaluations take as ``make_index``.

    Args:
        target: An address; the indexes' names begin with its name, and an index of that very name stays as
            it is.
        **options: More of `OpenSearchIndex`, such as ``bm25``.

    Raises:
        InputError, ServerError: See `OpenSearchIndex`; raised where one is made.

    Example:
        >>> with scratch("opensearch://localhost:9200/measured") as make_index:  # doctest: +SKIP
        ...     mteb.evaluate(MtebModel(model, "my-org/my-model", make_index=make_index), tasks)
    """
    address, _, settings = target.partition("?")
    made: list[OpenSearchIndex] = []

    def make_index() -> Index:
        name = f"{address}-{uuid.uuid4().hex[:12]}"
        made.append(OpenSearchIndex(f"{name}?{settings}" if settings else name, **options))
        return made[-1]

    try:
        yield make_index
    finally:
        for index in made:
            index.server.request("DELETE", f"/{index.name}")
