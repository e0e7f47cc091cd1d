"""A small retrieval collection that every machine has: the documentation strings of its own Python.

A query is the first sentence of a docstring, its document the rest. Sources are parsed, never imported.
"""

from __future__ import annotations

import ast
import inspect
import os
import random
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from st_l0.data import Collection, Document
from st_l0.errors import InputError
from st_l0.quickstart.material import UNSEEN, Material, fraction
from st_l0.quickstart.text_files import plain_rst
from st_l0.utils.progress import track

QUESTIONS = (
    "how do I compress a file",
    "run a function in another thread and wait for its result",
    "split a text into words with a regular expression",
)

_FEWEST_PAIRS, _FEWEST_QUERIES = 64, 10
_MAX_SEQ_LENGTH = 96
_QUERY_WORDS = range(4, 41)
_DOCUMENT_WORDS = range(20, 65)  # short enough for a CPU to encode thousands in a minute
_PREFIX_WORDS = 20
_SHINGLE_WORDS = 5
# A few packages hold most of the source code; of each, this much is enough, and it keeps the walk short.
_PACKAGE_BYTES = 500_000
_DOCSTRING_CHARACTERS = 3_000

_SKIPPED_FOLDER = re.compile(r"tests?|idle_test|_?vendor(?:ed)?|_?extern(?:als?)?")
_CANDIDATE = re.compile(r'"""[^"]{150}|\'\'\'[^\']{150}')
_SIGNATURE = re.compile(r"[\w.]+\([^\n]*\)(?:[ \t]*(?:->|=)[^\n]*)?[ \t]*(?:\n|\Z)")
_RULER = re.compile(r"^[ \t]*[-=~^+*#_|.\"']{3,}[-=~^+*#_|.\"' \t]*$", re.MULTILINE)
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_SENTENCE_END = re.compile(
    r"(?<!\be\.g)(?<!\bi\.e)(?<!\bvs)(?<!\bcf)(?<!\bal)(?<!\b[A-Z])[.!?][\"')]*(?=\s+[^\sa-z])"
)
_COMMON_WORD = re.compile(r"\b(?:the|an?|of|to|is|are|in|and|or|for|be|if|by|with|that|this|as|on|it|not)\b")


class Docstring(NamedTuple):
    """A query and the one document that answers it.

    Attributes:
        id: Qualified name of the documented object, unique.
        module: Top-level module; each module of the standard library is one.
        query: First sentence, 4 to 40 words.
        document: The rest, 20 to 64 words, without markup and without the name of the object.
    """

    id: str
    module: str
    query: str
    document: str


def collect_docstrings(
    *,
    limit: int | None = None,
    seed: int = 0,
    roots: Sequence[str | Path] | None = None,
    progress: bool = True,
) -> list[Docstring]:
    """Collect pairs from the docstrings of modules, classes and functions.

    The same installation gives the same pairs. Tests and vendored packages are left out, as are files that
    do not parse or are not UTF-8. Of a package with more than 0.5 MB of source a fixed selection of files is
    read. Of pairs with the same query, and of documents that share most of their 5-word sequences with others
    (inherited and copied docstrings), one stays.

    Args:
        limit: Keep a random sample of this size, drawn with ``seed``.
        seed: Seed of the sample.
        roots: Folders that hold importable modules; by default the standard library and site-packages.
        progress: Whether to show a progress bar.

    Returns:
        Pairs, sorted by id.

    Raises:
        InputError: nothing was found.
    """
    folders = [Path(root) for root in roots] if roots is not None else _installed()
    candidates: list[Docstring] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in the sources of others
        for name, path in track(_source_files(folders), "docstrings", unit="files", shown=progress):
            candidates += _pairs(name, path)
    items = _distinct(candidates)
    if not items:
        raise InputError(
            f"no docstrings of use in {', '.join(map(str, folders))}; give roots with Python sources"
        )
    if limit is not None and limit < len(items):
        items = sorted(random.Random(seed).sample(items, limit))
    return items


def docstring_material(*, limit: int) -> Material:
    """The docstrings of this Python installation as the material of a quickstart.

    Args:
        limit: Docstrings to use at most.

    Raises:
        InputError: They are too few.
    """
    seen, unseen = split_by_module(docstrings := collect_docstrings(limit=limit))
    if len(seen) < _FEWEST_PAIRS or len(unseen) < _FEWEST_QUERIES:
        raise InputError(f"{len(seen)} + {len(unseen)} docstrings are too few: raise --limit")
    return Material(
        documents=[Document(one.id, one.document) for one in docstrings],
        pairs=[(one.query, one.document) for one in seen],
        unseen=Collection(
            UNSEEN,
            {one.id: one.document for one in unseen},
            {one.id: one.query for one in unseen},
            {one.id: {one.id: 1} for one in unseen},
        ),
        held_out="the unseen modules",
        max_seq_length=_MAX_SEQ_LENGTH,
        found=[f"{len(seen)} pairs to train on, {len(unseen)} from modules that training never sees"],
        caveats=(),
        questions=QUESTIONS,
    )


def split_by_module(
    items: Iterable[Docstring], *, test_share: float = 0.25, seed: int = 0
) -> tuple[list[Docstring], list[Docstring]]:
    """Split into train and test so that no top-level module is in both.

    A module's side depends on its name and ``seed`` only, so a further package does not move the others. Of
    the standard library, and of the third-party packages, at least one module each is in the test part (and,
    if there are two, one in the training part).

    Args:
        items: Pairs.
        test_share: Share of the modules that go to the test part, within ``(0, 1)``.
        seed: Another seed gives another split.

    Returns:
        Training pairs and test pairs, in the order given.

    Raises:
        InputError: ``test_share`` is not within ``(0, 1)``.
    """
    if not 0 < test_share < 1:
        raise InputError(f"test_share is {test_share}; give a number between 0 and 1")
    items = list(items)
    test_modules: set[str] = set()
    for standard in (True, False):
        modules = {item.module for item in items if (item.module in sys.stdlib_module_names) == standard}
        ranked = sorted(modules, key=lambda module: (fraction(f"{seed}:{module}"), module))
        chosen = sum(fraction(f"{seed}:{module}") < test_share for module in ranked)
        test_modules.update(ranked[: max(1, min(chosen, len(ranked) - 1))])
    train = [item for item in items if item.module not in test_modules]
    return train, [item for item in items if item.module in test_modules]


def _installed() -> list[Path]:
    paths = sysconfig.get_paths()
    return list(dict.fromkeys(Path(paths[key]).resolve() for key in ("stdlib", "purelib", "platlib")))


def _source_files(roots: Iterable[Path]) -> list[tuple[str, Path]]:
    """Dotted module names and their files, sorted; of a large package the first by a hash of their names."""
    packages: dict[str, list[tuple[str, Path]]] = {}
    for root in roots:
        for folder, folders, files in os.walk(root):
            # Only what can be imported: this leaves out site-packages within the standard library, too.
            folders[:] = [
                name for name in folders if name.isidentifier() and not _SKIPPED_FOLDER.fullmatch(name)
            ]
            for file in files:
                path = Path(folder, file)
                parts = path.relative_to(root).with_suffix("").parts
                if path.suffix != ".py" or not parts[-1].isidentifier() or _is_test(parts[-1]):
                    continue
                name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
                packages.setdefault(parts[0], []).append((name, path))
    chosen: list[tuple[str, Path]] = []
    for modules in packages.values():
        size = 0
        for name, path in sorted(modules, key=lambda module: (fraction(module[0]), module)):
            if size >= _PACKAGE_BYTES:
                break
            size += path.stat().st_size
            chosen.append((name, path))
    return sorted(chosen)


def _is_test(name: str) -> bool:
    return name.startswith("test_") or name.endswith("_test") or name == "conftest"


def _pairs(module: str, path: Path) -> Iterator[Docstring]:
    """Pairs of one source file; none from a file that does not parse."""
    try:
        source = path.read_bytes().decode("utf-8-sig")
        if not _CANDIDATE.search(source):  # much cheaper than parsing
            return
        tree = ast.parse(source)
    except (OSError, UnicodeDecodeError, SyntaxError, ValueError, RecursionError, MemoryError):
        return  # such a file cannot be imported either
    package = module.split(".")[0]
    for name, text in _docstrings(tree, module):
        pair = _split(text, name.rsplit(".", 1)[-1])
        if pair is not None:
            yield Docstring(name, package, *pair)


def _docstrings(node: ast.AST, name: str) -> Iterator[tuple[str, str]]:
    """Qualified name and docstring of a node and of all definitions inside it."""
    definition = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
    if definition and (text := _own_docstring(node)):
        yield name, text
    for field in ("body", "orelse", "finalbody", "handlers"):
        children = getattr(node, field, None)
        for child in children if isinstance(children, list) else ():
            own = None if isinstance(child, ast.ExceptHandler) else getattr(child, "name", None)
            yield from _docstrings(child, f"{name}.{own}" if own else name)


def _own_docstring(node: ast.AST) -> str:
    body: list[ast.stmt] = getattr(node, "body", [])
    if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        value = body[0].value.value
        if isinstance(value, str):
            return inspect.cleandoc(value[:_DOCSTRING_CHARACTERS])
    return ""


def _split(text: str, name: str) -> tuple[str, str] | None:
    """First sentence and the rest, both cleaned; None if they do not make a good pair."""
    text = _RULER.sub("", text).strip()
    while signature := _SIGNATURE.match(text):
        text = text[signature.end() :].lstrip()
    head, *tail = _BLANK_LINE.split(text, maxsplit=1)
    if not head[:1].isalpha() or head.split("\n", 1)[0].rstrip().endswith(":"):  # a list, code or "Args:"
        return None
    end = _SENTENCE_END.search(head)
    cut = end.end() if end else len(head)
    query = plain_rst(head[:cut])
    if len(query.split()) not in _QUERY_WORDS or query.endswith(":") or not query.isascii():
        return None
    document = plain_rst("\n\n".join([head[cut:], *tail]))
    words = _without_name(document.replace(query, " "), name, query).split()
    document = " ".join(words[: _DOCUMENT_WORDS[-1]])
    if len(words) < _DOCUMENT_WORDS[0] or not _is_english(document):
        return None
    return query, document


def _without_name(document: str, name: str, query: str) -> str:
    """Remove the object's name, which would give the answer away.

    A plain word ("mean") that the query says as well gives nothing away: it is removed only where it is used
    as a name, as an attribute or in a call.
    """
    if name not in document:  # saves building a pattern, for most
        return document
    own, call = re.escape(name), r"(?:\([^()]*\))?"
    pattern = rf"(?:\w+\.)*(?<!\w){own}(?!\w){call}"
    if re.fullmatch(r"[a-z]+", name) and name in re.findall(r"\w+", query.lower()):
        pattern = rf"(?:\w+\.)+{own}\b{call}|(?<!\w){own}\([^()]*\)?"
    return re.sub(pattern, " ", document)


def _is_english(text: str) -> bool:
    if not text.isascii() and sum(map(str.isascii, text)) < 0.97 * len(text):
        return False
    words = text.count(" ") + 1
    letters = sum(map(str.isalpha, text)) + words
    return letters >= 0.75 * len(text) and len(_COMMON_WORD.findall(text.lower())) >= 0.1 * words


def _distinct(candidates: Iterable[Docstring]) -> list[Docstring]:
    """One of each group of near-duplicates, sorted by id.

    Long documents go first, so that a document that is contained in another is dropped and not the reverse.
    """
    seen: dict[str, set[object]] = {"id": set(), "query": set(), "prefix": set()}
    shingles: set[int] = set()
    kept: list[Docstring] = []
    for item in sorted(candidates, key=lambda item: (-len(item.document), item)):
        words = re.findall(r"[a-z0-9]+", item.document.lower())
        keys = {"id": item.id, "query": item.query.lower(), "prefix": tuple(words[:_PREFIX_WORDS])}
        if any(keys[kind] in seen[kind] for kind in keys):
            continue
        last = len(words) - _SHINGLE_WORDS
        own = {hash(tuple(words[start : start + _SHINGLE_WORDS])) for start in range(last + 1)}
        if 2 * len(own & shingles) > len(own):
            continue
        shingles |= own
        for kind, key in keys.items():
            seen[kind].add(key)
        kept.append(item)
    return sorted(kept)
