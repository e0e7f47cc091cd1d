"""The recipes that come with the package: where they are, their names, and what each says about itself."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import NamedTuple

from st_l0.errors import InputError
from st_l0.utils.paths import local_path

_PACKAGE = Path(__file__).parents[1]
_HEADER = ("Method", "Paper", "Data")


class RecipeFile(NamedTuple):
    """A recipe of the package, as the first lines of its file describe it.

    Attributes:
        name: What `find_recipe` takes, such as ``"small/l0_mask"``.
        path: The file.
        method: What it trains.
        paper: Where that was published.
        data: What has to be there.
    """

    name: str
    path: Path
    method: str
    paper: str
    data: str


def recipes_folder() -> Path:
    """Folder of the recipes: inside an installed package, else that of the repository it is run from.

    Raises:
        InputError: Neither is there.
    """
    for folder in (_PACKAGE / "recipes", _PACKAGE.parents[1] / "training_recipes"):
        if folder.is_dir():
            return folder
    raise InputError(f"{_PACKAGE / 'recipes'}: not there: install st-l0 again, or give the path of a recipe")


def list_recipes() -> list[RecipeFile]:
    """All recipes of the package, the small ones last.

    Raises:
        InputError: A file does not begin with the lines ``# Method:``, ``# Paper:`` and ``# Data:``.
    """
    found = []
    for name, path in _files().items():
        lines = path.read_text(encoding="utf-8").splitlines()[: len(_HEADER)]
        values = [
            line.removeprefix(f"# {key}: ").strip()
            for key, line in zip(_HEADER, lines, strict=False)
            if line.startswith(f"# {key}: ")
        ]
        if len(values) < len(_HEADER):
            keys = ", ".join(f"'# {key}: …'" for key in _HEADER)
            raise InputError(f"{path}: the first lines must be {keys}")
        found.append(RecipeFile(name, path, *values))
    return found


def find_recipe(name: str | Path) -> Path:
    """The file of a recipe.

    Args:
        name: A path, or the name of a recipe of the package. A file that exists comes first, and what ends in
            ``.yaml`` or ``.yml`` is always a path.

    Raises:
        InputError: ``name`` is neither; the message has the nearest names.
    """
    path = local_path(name)
    if path.suffix in (".yaml", ".yml") or (path.exists() and not path.is_dir()):
        return path
    known = _files()
    if path.as_posix() in known:
        return known[path.as_posix()]
    nearest = difflib.get_close_matches(path.as_posix(), known, n=3)
    mend = f"did you mean {', '.join(nearest)}?" if nearest else "st-l0 recipes lists the names"
    raise InputError(f"{name}: neither a file nor the name of a recipe: {mend}")


def _files() -> dict[str, Path]:
    folder = recipes_folder()
    paths = [*sorted(folder.glob("*.yaml")), *sorted(folder.glob("small/*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
