"""Test collections in BEIR layout: a corpus, queries and relevance judgements."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from st_l0.data.corpus import document_of, find_beir
from st_l0.data.lines import read_lines, read_records, write_records
from st_l0.errors import InputError
from st_l0.utils.files import replace_folder
from st_l0.utils.paths import local_path

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

    - ``corpus.jsonl``: an object ``{"_id", "title", "text"}`` a line, see `st_l0.data.corpus.document_of`.
    - ``queries.jsonl``: an object ``{"_id", "text"}`` a line. Queries without judgements are left out.
    - ``qrels/<split>.tsv``: a line ``query-id``, ``corpus-id``, ``score``, then one judgement a line.

    Judged documents that are not in the corpus are kept and counted in a warning: no run can find them.

    Args:
        folder: The collection's folder; its name becomes the collection's.
        split: Which judgements to read.

    Raises:
        InputError: a file is missing, damaged or empty, a key is missing or is not text, an id occurs twice,
            a judgement is not an integer, contradicts another or is about an unknown query.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> written = Collection("toy", {"a": "rain"}, {"q": "wet"}, {"q": {"a": 1}})
        >>> with TemporaryDirectory() as folder:
        ...     write_collection(written, f"{folder}/toy")
        ...     read_collection(f"{folder}/toy") == written
        True
    """
    folder = local_path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with corpus.jsonl, queries.jsonl and qrels/")
    qrels_path = _find_qrels(folder, split)
    queries_path = _find(folder, "queries.jsonl")
    corpus = _texts(_find(folder, "corpus.jsonl"), "documents")
    queries = _texts(queries_path, "queries")
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
    folder = local_path(folder)
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
        documents, queries = collection.corpus.items(), collection.queries.items()
        write_records(
            new / "corpus.jsonl", ({"_id": id, "title": "", "text": text} for id, text in documents)
        )
        write_records(new / "queries.jsonl", ({"_id": id, "text": text} for id, text in queries))
        (new / "qrels").mkdir()
        with (new / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("\t".join(_HEADER) + "\n")
            for query, judgements in collection.qrels.items():
                file.writelines(f"{query}\t{document}\t{score}\n" for document, score in judgements.items())


def _find(folder: Path, name: str) -> Path:
    path = find_beir(folder, name)
    if path is None:
        raise InputError(f"{folder / name}: no such file, nor {name}.gz; give a folder in BEIR layout")
    return path


def _find_qrels(folder: Path, split: str) -> Path:
    found = find_beir(folder / "qrels", f"{split}.tsv")
    if found is not None:
        return found
    path = folder / "qrels" / f"{split}.tsv"
    files = [*path.parent.glob("*.tsv"), *path.parent.glob("*.tsv.gz")]
    splits = ", ".join(sorted({file.name.removesuffix(".gz").removesuffix(".tsv") for file in files}))
    raise InputError(f"{path}: no such file; " + (f"splits here: {splits}" if splits else "no split is here"))


def _texts(path: Path, what: str) -> dict[str, str]:
    """Id → text of each line; ids are unique."""
    texts: dict[str, str] = {}
    # The bar shows on a terminal only, and only when reading takes long.
    bar = tqdm(read_records(path), desc=f"Reading {what}", unit="", leave=False, delay=2, disable=None)
    for number, record in bar:
        identifier, text = document_of(path, number, record, numbered=False)
        if identifier in texts:
            raise InputError(f"{path}:{number}: id {identifier!r:.40} occurs twice; give each one its own")
        texts[identifier] = text
    if not texts:
        raise InputError(f"{path}: no {what}; give at least one")
    return texts


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
