"""Test collections in BEIR layout: a corpus, queries and relevance judgements."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from st_l0.data import read_lines, read_records
from st_l0.errors import InputError
from st_l0.utils.files import replace_folder

logger = logging.getLogger(__name__)

_HEADER = ["query-id", "corpus-id", "score"]
_INTEGER = re.compile(r"[+-]?[0-9]+")


@dataclass(frozen=True)
class Collection:
    """A test collection.

    Attributes:
        name: What reports call it.
        corpus: Document id → its title and text, joined by one space; may be empty.
        queries: Query id → text, the judged queries only.
        qrels: Query id → document id → graded relevance; 0 and less is not relevant.
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def read_collection(folder: str | Path, split: str = "test") -> Collection:
    """Read a collection in BEIR layout; each file may be compressed, its name then ends in ``.gz``.

    - ``corpus.jsonl``: an object ``{"_id", "title", "text"}`` a line; the title may be absent.
    - ``queries.jsonl``: an object ``{"_id", "text"}`` a line. Queries without judgements are left out.
    - ``qrels/<split>.tsv``: a line ``query-id``, ``corpus-id``, ``score``, then one judgement a line.

    Judged documents that are not in the corpus are kept and counted in a warning: no run can find them.

    Args:
        folder: The collection's folder; its name becomes the collection's.
        split: Which judgements to read.

    Raises:
        InputError: a file is missing, damaged or empty, a key is missing or is not text, an id occurs twice,
            a judgement is not an integer, contradicts another or is about an unknown query.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with corpus.jsonl, queries.jsonl and qrels/")
    qrels_path = _find_qrels(folder, split)
    queries_path = _find(folder / "queries.jsonl")
    corpus = {
        identifier: f"{title} {text}".strip()
        for identifier, title, text in _texts(_find(folder / "corpus.jsonl"), "documents")
    }
    queries = {identifier: text for identifier, _, text in _texts(queries_path, "queries")}
    qrels = _read_qrels(qrels_path, queries, queries_path)
    judged = {document for judgements in qrels.values() for document in judgements}
    if missing := len(judged - corpus.keys()):
        logger.warning(
            "%s: %d of %d judged documents are not in the corpus; they count as not found",
            qrels_path, missing, len(judged),
        )  # fmt: skip
    judged_queries = {identifier: text for identifier, text in queries.items() if identifier in qrels}
    return Collection(folder.resolve().name, corpus, judged_queries, qrels)


def write_collection(collection: Collection, folder: str | Path) -> None:
    """Write a collection in BEIR layout, its judgements as the split ``test``.

    Titles are written as part of the text. The folder appears whole or not at all.

    Args:
        collection: What to write; `read_collection` gives it back, under the name of ``folder``.
        folder: A new or empty folder.

    Raises:
        InputError: ``folder`` holds something already, or an id is empty or holds a tab or a line break.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder}: exists already; give a new or empty folder")
    judged = (document for judgements in collection.qrels.values() for document in judgements)
    for identifier in (*collection.corpus, *collection.queries, *collection.qrels, *judged):
        if not identifier or identifier != identifier.strip() or re.search(r"[\t\r\n]", identifier):
            raise InputError(
                f"{folder}: id {identifier!r:.40} cannot be written; ids are not empty, without tabs, "
                "line breaks and surrounding spaces"
            )
    with replace_folder(folder, "collection") as new:
        with (new / "corpus.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for identifier, text in collection.corpus.items():
                file.write(_line({"_id": identifier, "title": "", "text": text}))
        with (new / "queries.jsonl").open("w", encoding="utf-8", newline="\n") as file:
            for identifier, text in collection.queries.items():
                file.write(_line({"_id": identifier, "text": text}))
        (new / "qrels").mkdir()
        with (new / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("\t".join(_HEADER) + "\n")
            for query, judgements in collection.qrels.items():
                file.writelines(f"{query}\t{document}\t{score}\n" for document, score in judgements.items())


def _line(record: dict[str, str]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _find(path: Path) -> Path:
    compressed = path.with_name(path.name + ".gz")
    if compressed.exists() and not path.exists():
        return compressed
    if not path.exists():
        raise InputError(f"{path}: no such file, nor {compressed.name}; give a folder in BEIR layout")
    return path


def _find_qrels(folder: Path, split: str) -> Path:
    path = folder / "qrels" / f"{split}.tsv"
    if path.exists() or path.with_name(path.name + ".gz").exists():
        return _find(path)
    files = [*path.parent.glob("*.tsv"), *path.parent.glob("*.tsv.gz")]
    splits = ", ".join(sorted({file.name.removesuffix(".gz").removesuffix(".tsv") for file in files}))
    raise InputError(f"{path}: no such file; " + (f"splits here: {splits}" if splits else "no split is here"))


def _texts(path: Path, what: str) -> Iterator[tuple[str, str, str]]:
    """Id, title and text of each line; ids are unique."""
    seen: set[str] = set()
    # The bar shows on a terminal only, and only when reading takes long.
    bar = tqdm(read_records(path), desc=f"Reading {what}", unit="", leave=False, delay=2, disable=None)
    for number, record in bar:
        identifier = _identifier(path, number, record)
        if identifier in seen:
            raise InputError(f"{path}:{number}: id {identifier!r:.40} occurs twice; give each one its own")
        seen.add(identifier)
        if record.get("text") is None:
            raise InputError(f"{path}:{number}: no text; give every line one (it may be empty)")
        yield identifier, _text(path, number, record, "title"), _text(path, number, record, "text")
    if not seen:
        raise InputError(f"{path}: no {what}; give at least one")


def _identifier(path: Path, number: int, record: dict[str, Any]) -> str:
    value = record.get("_id")
    if value is None:
        raise InputError(f"{path}:{number}: no _id; give every line one")
    if isinstance(value, bool) or not isinstance(value, (str, int)) or not str(value).strip():
        raise InputError(f"{path}:{number}: _id is {value!r:.40}; give a string or an integer")
    return str(value).strip()


def _text(path: Path, number: int, record: dict[str, Any], key: str) -> str:
    value = record.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{path}:{number}: {key} is {type(value).__name__}; give a string")
    return value or ""


def _read_qrels(path: Path, queries: dict[str, str], queries_path: Path) -> dict[str, dict[str, int]]:
    qrels: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        fields = [field.strip() for field in line.split("\t")]
        if number == 1:
            if fields != _HEADER:
                raise InputError(f"{path}:1: no header; start with a line {', '.join(_HEADER)}, with tabs")
            continue
        if fields == [""]:
            continue
        if len(fields) != 3:
            raise InputError(f"{path}:{number}: {len(fields)} fields; give {', '.join(_HEADER)}, with tabs")
        query, document, score = fields
        if not _INTEGER.fullmatch(score):
            raise InputError(f"{path}:{number}: judgement {score!r:.40} is not an integer; give 0, 1, 2, ...")
        if query not in queries:
            raise InputError(
                f"{path}:{number}: query {query!r:.40} is not in {queries_path.name}; "
                "add it or drop its judgements"
            )
        if qrels.setdefault(query, {}).setdefault(document, int(score)) != int(score):
            raise InputError(
                f"{path}:{number}: query {query!r:.40} and document {document!r:.40} were judged "
                "otherwise above; keep one judgement"
            )
    if not qrels:
        raise InputError(f"{path}: no judgements; give at least one")
    return qrels
