"""The texts of hits, fetched when somebody looks at one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import overload


class LazyTexts(Sequence["str | None"]):
    """Texts that come in one request, when the first of them is read; scores alone cost none.

    Args:
        ids: Of the documents.
        fetch: From ids to their texts.
    """

    def __init__(self, ids: Sequence[str], fetch: Callable[[Sequence[str]], list[str | None]]) -> None:
        self._ids, self._fetch = ids, fetch
        self._texts: list[str | None] | None = None

    def _all(self) -> list[str | None]:
        if self._texts is None:
            self._texts = self._fetch(self._ids)
        return self._texts

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, item: int) -> str | None: ...
    @overload
    def __getitem__(self, item: slice) -> Sequence[str | None]: ...
    def __getitem__(self, item: int | slice) -> str | Sequence[str | None] | None:
        if isinstance(item, slice) and self._texts is None:
            return LazyTexts(self._ids[item], self._fetch)
        return self._all()[item]

    def __iter__(self) -> Iterator[str | None]:
        return iter(self._all())
