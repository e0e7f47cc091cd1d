"""The layers of the package: what may import what, and where some names may stand at all."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
FILES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((SOURCE / "st_l0").rglob("*.py"))
}
# From the ground up: a package imports from lower layers only, never from one beside it.
LAYERS = (
    ("errors",),
    ("utils",),
    ("data", "head", "index", "losses"),
    ("encoder",),
    ("evaluation", "hub", "indexing", "teachers"),
    ("demo", "mining", "training"),
    ("reports",),
    ("quickstart", "sweeps"),
    ("cli",),
    ("__main__",),
)
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}


def package_of(module):
    return module.split(".")[1] if "." in module else module


def imports_of(path, *, types=False):
    """The modules of st_l0 that a file imports, at its top or inside; those for annotations if asked for."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "st_l0")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "st_l0":
            inside = (f"{node.module}.{name.name}" for name in node.names)
            yield from (name if name in FILES else node.module for name in inside)


def test_every_package_has_a_layer():
    assert {package_of(module) for module in FILES} - {"st_l0"} == LAYER_OF.keys()


@pytest.mark.parametrize("module", [module for module in FILES if module != "st_l0"])
def test_imports_go_down(module):
    here = package_of(module)
    for imported in imports_of(FILES[module]):
        there = package_of(imported)
        assert there == here or LAYER_OF[there] < LAYER_OF[here], f"{module} imports {imported}"


def test_no_module_imports_itself_by_a_detour():
    graph = {module: set(imports_of(path)) for module, path in FILES.items()}

    def walk(module, way):
        assert module not in way, " → ".join((*way, module))
        if module not in done:
            for imported in graph[module]:
                walk(imported, (*way, module))
            done.add(module)

    done = set()
    for module in graph:
        walk(module, ())


def test_one_module_knows_the_process_group():
    name = re.compile(r"torch\.distributed|PartialState")
    found = [module for module, path in FILES.items() if name.search(path.read_text(encoding="utf-8"))]
    assert found == ["st_l0.utils.distributed"]


def test_a_file_is_tested_in_one_process(request):
    """Its fixtures are made once, and a server for all that need one."""
    if getattr(request.config.option, "loadgroup", False):  # of a process of pytest-xdist
        assert request.node.nodeid.endswith("@tests/test_layout.py")
