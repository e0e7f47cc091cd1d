"""What the collator of sentence-transformers is given, and what it is put into."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from st_l0.training.token_store import Preprocess, Side, TokenStore


@dataclass
class KeepTexts:
    """A collator that hands the texts on beside what it makes of them.

    Attributes:
        collate: The collator of sentence-transformers.
    """

    collate: Callable[[list[dict[str, Any]]], dict[str, Any]]

    def __call__(self, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Collate, and add ``texts``: each text column's name to its texts, queries first."""
        columns = [
            name for name, value in rows[0].items() if isinstance(value, str) and name != "dataset_name"
        ]
        return {
            **self.collate(list(rows)),
            "texts": {name: [row[name] for row in rows] for name in columns},
        }

    def __getattr__(self, name: str) -> Any:
        if name == "collate":  # not there yet while unpickling
            raise AttributeError(name)
        return getattr(self.collate, name)


@dataclass
class StoredTokens:
    """A model's ``preprocess`` that looks texts up, and asks the model where it does not know one.

    Attributes:
        live: The model's.
        store: The tokens.
    """

    live: Preprocess
    store: TokenStore

    def __call__(
        self, inputs: Sequence[Any], prompt: str | None = None, task: str | None = None, **options: Any
    ) -> Any:
        """The features of texts, the same as ``live`` gives."""
        found = None if options else self.store.features(inputs, Side(task, prompt))
        return self.live(inputs, prompt=prompt, task=task, **options) if found is None else found
