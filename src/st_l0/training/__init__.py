"""From a recipe to a trained checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_l0.utils.lazy import on_first_use

if TYPE_CHECKING:
    from st_l0.training.mlm import train_mlm
    from st_l0.training.plan import dry_run
    from st_l0.training.recipe import Recipe, load_recipe
    from st_l0.training.train_model import train

__all__ = ["Recipe", "dry_run", "load_recipe", "train", "train_mlm"]

# So that reading a recipe does not wait for torch.
__getattr__ = on_first_use(
    __name__,
    {
        "Recipe": "recipe",
        "dry_run": "plan",
        "load_recipe": "recipe",
        "train": "train_model",
        "train_mlm": "mlm",
    },
)
