"""From a recipe to a trained checkpoint."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from st_l0.training.mlm import train_mlm
    from st_l0.training.plan import dry_run
    from st_l0.training.recipe import Recipe, load_recipe
    from st_l0.training.train_model import train

__all__ = ["Recipe", "dry_run", "load_recipe", "train", "train_mlm"]

_HOMES = {
    "Recipe": "recipe",
    "dry_run": "plan",
    "load_recipe": "recipe",
    "train": "train_model",
    "train_mlm": "mlm",
}


def __getattr__(name: str) -> Any:
    # On first use, so that reading a recipe does not wait for torch.
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
