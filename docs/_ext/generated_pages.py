"""Pages written from the package itself: commands, keys of recipes, public names, blocks that do not run."""

import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

MODULES = {
    "st_l0": "What most programs need",
    "st_l0.losses": "Losses and regularizers",
    "st_l0.training": "Recipes and training",
    "st_l0.teachers": "Teachers",
    "st_l0.mining": "Hard negatives",
    "st_l0.data": "Corpora, collections and training rows",
    "st_l0.index": "Index and engines",
    "st_l0.index.opensearch": "OpenSearch",
    "st_l0.indexing": "From a corpus to an index",
    "st_l0.evaluation": "Evaluation",
    "st_l0.hub": "Export and publishing",
}
# The protocol that several engines keep says what their methods do.
WITH_INHERITED = {"EmbeddedIndex", "OpenSearchIndex"}


def setup(app: Sphinx) -> dict[str, Any]:
    """Sphinx's entry."""
    app.connect("builder-inited", write_pages)
    app.connect("source-read", name_files)
    return {"parallel_read_safe": True}


def write_pages(app: Sphinx) -> None:
    """Write `reference/generated/*.md`; what has not changed keeps its time, so that it is not read again."""
    folder = Path(app.srcdir) / "reference" / "generated"
    folder.mkdir(parents=True, exist_ok=True)
    pages = {"commands": commands(), "recipes": recipes(), "not-run": not_run(Path(app.srcdir)), **api()}
    for name, text in pages.items():
        path = folder / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in pages:
            path.unlink()


def name_files(app: Sphinx, page: str, source: list[str]) -> None:
    """Links to files of the repository that are no pages become their names."""
    above = "../" * (page.count("/") + 1)
    source[0] = re.sub(rf"\[([^]]*)\]\({re.escape(above)}([^)]*)\)", r"\1 (`\2`)", source[0])


def commands() -> str:
    """The help of every command, as it prints it."""
    from typer.main import get_command

    from st_l0.cli import app

    names = [[]]
    for name, command in get_command(app).commands.items():
        names.append([name])
        names.extend([name, inner] for inner in getattr(command, "commands", ()))
    parts = ["# Commands", "", "What `--help` of each command says."]
    for name in names:
        title = " ".join(["st-l0", *name])
        parts += ["", f"## {title}" if len(name) < 2 else f"### {title}", "", "```text", _help(name), "```"]
    return "\n".join(parts) + "\n"


def _help(command: list[str]) -> str:
    plain = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb", "HF_HUB_OFFLINE": "1"}
    ran = [sys.executable, "-m", "st_l0", *command, "--help"]
    out = subprocess.run(ran, env=plain, capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in out.strip().splitlines())


def recipes() -> str:
    """All keys of a recipe, from its schema."""
    from st_l0.training import Recipe
    from st_l0.training.schema import json_schema

    schema = json_schema(Recipe)
    parts = [
        "# Keys of a recipe",
        "",
        "A recipe is a YAML file of these sections; on the command line a key is `section.key=value`.",
        "The same as JSON schema, for editors: `st-l0 recipes --schema`.",
    ]
    loose = {}
    for name, known in schema["properties"].items():
        section = _section(known, schema["$defs"])
        if section is None:
            loose[name] = known
        else:
            parts += ["", f"## {name}", "", section.get("description", ""), *_keys(section)]
    parts += ["", "## Keys without a section", *_keys({"properties": loose})]
    return "\n".join(parts) + "\n"


def _section(known: dict, definitions: dict) -> dict | None:
    for choice in (known, *known.get("anyOf", ())):
        if "$ref" in choice:
            return definitions[choice["$ref"].rpartition("/")[2]]
        if "properties" in choice:
            return choice
    return None


def _keys(section: dict) -> list[str]:
    rows = []
    for key, known in section["properties"].items():
        default = f"; default `{known['default']}`" if known.get("default") not in (None, [], {}) else ""
        must = "; required" if key in section.get("required", ()) else ""
        rows += ["", f"`{key}`", f": *{_type(known)}{must}{default}.* {_text(known.get('description', ''))}"]
    return rows


def _type(known: dict) -> str:
    if "$ref" in known:
        return known["$ref"].rpartition("/")[2]
    if "anyOf" in known:
        return " or ".join(dict.fromkeys(map(_type, known["anyOf"])))
    if "enum" in known:
        return " or ".join(f"`{value}`" for value in known["enum"])
    if "const" in known:
        return f"`{known['const']}`"
    words = {"null": "nothing", "object": "mapping", "array": "list"}
    kinds = known.get("type", "anything")
    name = " or ".join(words.get(kind, kind) for kind in ([kinds] if isinstance(kinds, str) else kinds))
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {known[bound]}" for bound, sign in bounds.items() if bound in known]
    return f"{name} {', '.join(limits)}" if limits else name


def _text(text: str) -> str:
    return " ".join(text.split()).replace("<", "\\<")


def api() -> dict[str, str]:
    """A page a public module: each name of its ``__all__``, from the docstrings."""
    pages, known = {}, {}
    index = ["# Python", "", "```{toctree}", ":maxdepth: 1", ""]
    for name, title in MODULES.items():
        module = importlib.import_module(name)
        parts = [f"# {name}", "", f"{title}.", ""]
        for public in module.__all__:
            value = getattr(module, public)
            first = known.setdefault(id(value), f"{name}.{public}")
            lines = (
                _directive(name, public, value)
                if first == f"{name}.{public}"
                else [f"`{first}`, from there."]
            )
            parts += ["```{eval-rst}", *lines, "```", ""]
        page = f"api-{name.replace('.', '-')}"
        pages[page] = "\n".join(parts)
        index.append(page)
    pages["api"] = "\n".join([*index, "```", ""])
    return pages


def _directive(module: str, name: str, value: object) -> list[str]:
    if not isinstance(value, type):
        kind = "autofunction" if callable(value) else "autodata"
        return [f".. {kind}:: {module}.{name}"]
    options = ["   :members:", "   :special-members: __call__"]
    if name in WITH_INHERITED:
        options.append("   :inherited-members:")
    return [f".. autoclass:: {module}.{name}", *options]


def not_run(docs: Path) -> str:
    """The blocks of the pages that the tests leave out, and why."""
    mark = re.compile(r"^<!-- not run: (.*?) -->\n+```\w*\n(.*?)\n", re.MULTILINE)
    parts = [
        "# Blocks that the tests do not run",
        "",
        "All other code on these pages, and in the README, is run by the tests, in order, in a folder with",
        "small data. These are not:",
    ]
    for page in [docs.parent / "README.md", *sorted(docs.rglob("*.md"))]:
        found = mark.findall(page.read_text(encoding="utf-8"))
        if found and "generated" not in page.parts and "_build" not in page.parts:
            parts += ["", f"## {page.relative_to(docs.parent).as_posix()}", ""]
            parts += [f"- {reason}: `{first.strip()}`" for reason, first in found]
    return "\n".join(parts) + "\n"
