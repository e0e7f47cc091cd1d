"""Test collections in BEIR layout: a corpus, queries and relevance judgements."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

from st_l0.data.corpus import read_beir
from st_l0.data.lines import write_records
from st_l0.data.parts import find_judgements, find_part, is_folder, located
from st_l0.data.qrels import read_qrels
from st_l0.data.records import Document, Fields, Kind
from st_l0.errors import InputError
from st_l0.utils.files import replace_folder
from st_l0.utils.paths import input_path, local_path
from st_l0.utils.progress import track

logger = logging.getLogger(__name__)

_HEADER = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True)
class Collection:
    """A test collection.

    Attributes:
        name: What reports call it.
        corpus: Document id → its title and text, joined by one space; may be empty.
        queries: Query id → text, the judged queries only.
        qrels: Query id → document id → graded relevance; 0 and less is not relevant.
        titles: Document id → the title that its text begins with, of those that have one.
    """

    name: str
    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]
    titles: Mapping[str, str] = field(default_factory=dict)

    @property
    def documents(self) -> Iterator[Document]:
        """The corpus, document by document."""
        return (Document(id, text, self.titles.get(id, "")) for id, text in self.corpus.items())


def read_collection(folder: str | Path, split: str = "test") -> Collection:
    """Read a collection in BEIR layout: a folder, or a zip archive of one as it was downloaded.

    - ``corpus.jsonl``: an object ``{"_id", "title", "text"}`` a line, see `st_l0.data.records.document_of`.
    - ``queries.jsonl``: an object ``{"_id", "text"}`` a line. Queries without judgements are left out.
    - ``qrels/<split>.tsv``: a line ``query-id``, ``corpus-id``, ``score``, then one judgement a line; or
      TREC's four columns, see `st_l0.data.qrels.read_qrels`.

    Each may be compressed, its name then ends in ``.gz``. Corpus and queries may also be another kind of file
    that `read_documents` takes, or a folder of parquet files (``corpus/…``), as on the Hub; judgements
    ``.jsonl``, ``.parquet`` or ``.csv``, or TREC's ``.txt`` or ``.qrels``. Names of TREC and MS MARCO are
    taken too: ``collection.tsv``, ``topics.tsv`` or ``queries.<split>.tsv``, and judgements beside them, as
    ``qrels.<split>.tsv``, ``<split>.qrels``, ``qrels.txt`` or ``qrels``.

    Judged documents that are not in the corpus are kept and counted in a warning: no run can find them.

    Args:
        folder: The collection's folder or archive, or the address of one for fsspec; its name becomes the
            collection's.
        split: Which judgements to read.

    Raises:
        InputError: a file is missing, damaged or empty, a key is missing or is not text, an id occurs twice,
            a judgement is not a whole number, contradicts another or is about an unknown query.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> written = Collection("toy", {"a": "rain"}, {"q": "wet"}, {"q": {"a": 1}})
        >>> with TemporaryDirectory() as folder:
        ...     write_collection(written, f"{folder}/toy")
        ...     read_collection(f"{folder}/toy") == written
        True
    """
    folder = located(input_path(folder))
    if not is_folder(folder):
        raise InputError(f"{folder}: no such folder; give one with corpus.jsonl, queries.jsonl and qrels/")
    qrels_path = find_judgements(folder, split)
    queries_path, queries, _ = _texts(folder, "queries", split)
    _, corpus, titles = _texts(folder, "corpus", split)
    qrels = read_qrels(qrels_path, queries, queries_path.name)
    judged = {document for judgements in qrels.values() for document in judgements}
    if missing := len(judged - corpus.keys()):
        logger.warning(
            "%s: %d of %d judged documents are not in the corpus; they count as not found",
            qrels_path, missing, len(judged),
        )  # fmt: skip
    judged_queries = {identifier: text for identifier, text in queries.items() if identifier in qrels}
    name = folder.resolve().name.removesuffix(".zip")
    return Collection(name, corpus, judged_queries, qrels, titles)


def own_documents(
    corpus: Mapping[str, str],
    queries: Mapping[str, str],
    qrels: Mapping[str, Mapping[str, int]] = MappingProxyType({}),
) -> set[str]:
    """The queries that are documents themselves, as in ArguAna and Quora: that document is no hit.

    BEIR's protocol drops the document whose id is the query's. Here it is dropped unless it is judged as
    relevant to the query, or the two are not the same, see `is_own`.

    Args:
        corpus: Document id → text.
        queries: Query id → text.
        qrels: Query id → document id → graded relevance.
    """
    return {
        query
        for query, text in queries.items()
        if query in corpus and qrels.get(query, {}).get(query, 0) <= 0 and is_own(query, text, corpus[query])
    }


def is_own(identifier: str, query: str, document: str | None) -> bool:
    """Whether a query and a document of one id are the same.

    Ids that are mere numbers may be equal by chance, so there one text has to hold the other.

    Args:
        identifier: The id of both.
        query: The query's text.
        document: The document's text; ``None`` if it is not known.
    """
    if document is None or not identifier.isdecimal():
        return True
    texts = (" ".join(text.casefold().split()) for text in (query, document))
    shorter, longer = sorted(texts, key=len)
    return bool(shorter) and shorter in longer


def write_collection(collection: Collection, folder: str | Path) -> None:
    """Write a collection in BEIR layout, its judgements as the split ``test``.

    The folder appears whole or not at all.

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
        write_records(
            new / "corpus.jsonl",
            (
                {"_id": one.id, "title": one.title, "text": one.text[len(one.title) :].removeprefix(" ")}
                for one in collection.documents
            ),
        )
        queries = ({"_id": id, "text": text} for id, text in collection.queries.items())
        write_records(new / "queries.jsonl", queries)
        (new / "qrels").mkdir()
        with (new / "qrels" / "test.tsv").open("w", encoding="utf-8", newline="\n") as file:
            file.write("\t".join(_HEADER) + "\n")
            for query, judgements in collection.qrels.items():
                file.writelines(f"{query}\t{document}\t{score}\n" for document, score in judgements.items())


def _texts(folder: Path, kind: Kind, split: str) -> tuple[Path, dict[str, str], dict[str, str]]:
    """The file of a part, id → text of each of its rows, and id → title of those that have one."""
    path = find_part(folder, kind, split)
    if path is None:
        raise InputError(
            f"{folder / kind}.jsonl: no such file, nor {kind}.tsv or others; see read_collection"
        )
    what = "documents" if kind == "corpus" else "queries"
    texts, titles = {}, {}
    for one in track(read_beir(path, Fields(kind)), "reading", unit=what, delay=2):
        texts[one.id] = one.text
        if one.title:
            titles[one.id] = one.title
    return path, texts, titles
