"""The recipes as a part of the package: found by name, listed, and in the wheel."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from st_l0 import cli
from st_l0.errors import InputError
from st_l0.training import recipe_files
from st_l0.training.recipe import load_recipe
from st_l0.training.recipe_files import find_recipe, list_recipes, recipes_folder

REPOSITORY = Path(__file__).parents[2]
ROOM = REPOSITORY / "training_recipes"
FILES = [*sorted(ROOM.glob("*.yaml")), *sorted(ROOM.glob("small/*.yaml"))]
NAMES = [path.relative_to(ROOM).with_suffix("").as_posix() for path in FILES]


def message(function, *args):
    with pytest.raises(InputError) as caught:
        function(*args)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for the folder of the installed package, without recipes and outside a repository."""
    folder = tmp_path / "lib" / "python" / "st_l0"
    folder.mkdir(parents=True)
    monkeypatch.setattr(recipe_files, "_PACKAGE", folder)
    return folder


def test_names_stand_for_the_files():
    assert {"l0_mask", "small/l0_mask"} <= set(NAMES)
    assert [find_recipe(name) for name in NAMES] == FILES
    assert load_recipe("small/l0_mask") == load_recipe(ROOM / "small" / "l0_mask.yaml")
    assert load_recipe("l0_mask", ["seed=7"]).seed == 7


def test_a_file_that_exists_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("l0_mask").mkdir()  # such as the output of a run
    assert find_recipe("l0_mask") == ROOM / "l0_mask.yaml"
    Path("l0_mask").rmdir()
    text = (ROOM / "l0_mask.yaml").read_text(encoding="utf-8")
    Path("l0_mask").write_text(f"{text}seed: 5\n", encoding="utf-8")
    assert find_recipe("l0_mask") == Path("l0_mask")
    assert load_recipe("l0_mask").seed == 5


def test_what_is_neither_has_the_nearest_names():
    nearest = "did you mean l0_mask, small/l0_mask, pairs_l0_mask?"
    assert message(load_recipe, "l0_maks") == f"l0_maks: neither a file nor the name of a recipe: {nearest}"
    assert message(find_recipe, "zzz").endswith("name of a recipe: st-l0 recipes lists the names")
    assert message(load_recipe, "l0_mask.yaml").startswith("l0_mask.yaml: cannot be read")


def test_the_header_describes_a_recipe():
    listed = list_recipes()
    assert [recipe.name for recipe in listed] == NAMES
    assert [recipe.path for recipe in listed] == FILES
    found = next(recipe for recipe in listed if recipe.name == "l0_mask")
    assert found[2:] == (
        "l0 mask: IDF queries, KL, FLOPS over the documents with more than 200 active dims only",
        "arXiv 2504.14839",
        "MS MARCO with stored teacher scores, from the Hub; data/msmarco/idf.json",
    )


def test_a_header_that_is_not_there_is_refused(package):
    (package / "recipes").mkdir()
    path = package / "recipes" / "mine.yaml"
    path.write_text("# Method: x\n# Data: y\nmodel:\n")
    expected = f"{path}: the first lines must be '# Method: …', '# Paper: …', '# Data: …'"
    assert message(list_recipes) == expected


def test_an_installed_package_has_its_own(package):
    assert message(recipes_folder).startswith(f"{package / 'recipes'}: not there: install st-l0 again")
    shutil.copytree(ROOM, package / "recipes")
    assert find_recipe("small/l0_mask") == package / "recipes" / "small" / "l0_mask.yaml"
    assert [recipe.name for recipe in list_recipes()] == NAMES


def test_the_command_lists_them_uncut_where_it_is_piped():
    result = CliRunner().invoke(cli.app, ["recipes"])
    assert (result.exit_code, result.stderr) == (0, "")
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows == [[one.name, one.method, one.paper, one.data] for one in list_recipes()]


def test_the_command_makes_a_table_on_a_terminal():
    code = "import sys; sys.stdout.isatty = lambda: True; from st_l0.cli import main; main()"
    environment = os.environ | {"COLUMNS": "200"}
    shown = subprocess.run(
        [sys.executable, "-c", code, "recipes"], env=environment, check=True, capture_output=True, text=True
    ).stdout
    shown = re.sub(r"\x1b\[\d*m", "", shown)
    assert re.search(r"name +┃ method +┃ paper +┃ data", shown)
    assert re.search(r"│ l0_mask +│ l0 mask: IDF queries, KL", shown)
    assert "training_recipes" in shown


def test_the_wheel_holds_what_the_finder_looks_for():
    tomllib = pytest.importorskip("tomllib")
    hatch = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"][
        "build"
    ]
    wheel = hatch["targets"]["wheel"]
    assert wheel["sources"] == {
        "src": "",
        "model_cards": "st_l0/model_cards",
        "training_recipes": "st_l0/recipes",
    }
    recipes = ("*.yaml", "small", "accelerate")
    assert set(wheel["include"]) == {
        "/src/st_l0",
        "/model_cards/*.jinja",
        *(f"/training_recipes/{name}" for name in recipes),
    }
    assert hatch["dev-mode-dirs"] == ["src"]  # an editable install takes the repository's own
    assert not (REPOSITORY / "src" / "st_l0" / "recipes").exists()


def test_a_built_wheel_lists_and_loads_them(tmp_path):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=REPOSITORY, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "installed")
    assert (tmp_path / "installed" / "st_l0" / "model_cards" / "card.md.jinja").exists()
    folder = tmp_path / "installed" / "st_l0" / "recipes"
    packed = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    hardware = {path.relative_to(ROOM) for path in ROOM.glob("accelerate/*.yaml")}
    assert packed == {path.relative_to(ROOM) for path in FILES} | hardware
    code = (
        "from st_l0.training.recipe_files import list_recipes\n"
        "from st_l0.training.recipe import load_recipe\n"
        "print(*[one.path for one in list_recipes()], load_recipe('small/l0_mask').output, sep='\\n')"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    printed = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert [Path(line).relative_to(folder) for line in printed[:-1]] == [
        path.relative_to(ROOM) for path in FILES
    ]
    assert printed[-1].startswith("runs/small")
