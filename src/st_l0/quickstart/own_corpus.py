"""Any documents as the material of a quickstart: queries are made of them, and whole files are held out."""

from __future__ import annotations

import heapq
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

from st_l0.data import Collection, Document, is_corpus, read_documents
from st_l0.errors import InputError
from st_l0.quickstart.made_queries import MadeQuery, all_queries, body_of
from st_l0.quickstart.material import UNSEEN, Material, fraction
from st_l0.quickstart.passages import Passages, file_of
from st_l0.quickstart.text_files import KINDS, kind_of_name
from st_l0.utils.paths import input_path

_FEWEST, _FEW = 100, 500  # documents to train and measure on
_FEWEST_QUERIES = 10
_SHORT = 12  # fewer words than these are no document and query
_TEST_SHARE = 0.25
_FEW_FILES, _BLOCK = 8, 10  # of fewer files, runs of so many passages are held out
_MEASURED = 1000  # documents that are searched for the made queries, where there are as many
_TRAINING_WORDS = 64  # of a document: short enough for a CPU to train on thousands in minutes
_QUESTIONS = 3
_MAX_SEQ_LENGTH = 256
_CAVEAT = (
    "These queries are made of the documents, and say their words: real ones are harder for any system. "
    "How well your users are served, only their queries tell: st-l0 evaluate MODEL --data FOLDER."
)


class _Source(Protocol):
    """Documents that can be read again."""

    def __iter__(self) -> Iterator[Document]: ...

    def describe(self, documents: int) -> list[str]:
        """What was found, a line each."""

    def files(self, identifiers: list[str]) -> list[str]:
        """What each document is held out with: near copies are rather in the same file."""


class _Files:
    def __init__(self, path: Path) -> None:
        self._passages = Passages(path)

    def __iter__(self) -> Iterator[Document]:
        return iter(self._passages)

    def describe(self, documents: int) -> list[str]:
        counts = self._passages.counts
        left_out = counts.left_out()
        return [
            f"{documents:,} passages of {counts.files:,} files",
            *([f"left out: {left_out}"] if left_out else []),
        ]

    def files(self, identifiers: list[str]) -> list[str]:
        files = [file_of(one) for one in identifiers]
        if len(set(files)) >= _FEW_FILES:
            return files
        numbers = (int(one.rpartition("#")[2]) for one in identifiers)
        return [f"{file}#{(number - 1) // _BLOCK}" for file, number in zip(files, numbers, strict=True)]


class _Records:
    def __init__(self, path: str) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Document]:
        return read_documents(self._path)

    def describe(self, documents: int) -> list[str]:
        return [f"{documents:,} documents"]

    def files(self, identifiers: list[str]) -> list[str]:
        return identifiers


def own_material(path: str | Path, *, limit: int) -> Material:
    """Make queries of documents, and hold a quarter of the files out.

    Training pairs are titles with what stands below them, first sentences with the rest, and key words with
    the document they tell from others. The collection has titles, or else first sentences, as its queries;
    no document in it has its title, nor the sentence that is its query. What has fewer than 12 words, or the
    words of an earlier document, is indexed only.

    Args:
        path: A folder of text files (see `Passages`) or one such file; or whatever `read_documents` reads, of
            which each record is a document, and is held out alone.
        limit: Documents to train and measure on at most, drawn by their ids.

    Raises:
        InputError: The documents cannot be read, or are too few.
    """
    source = _open(path)
    short = copies = total = 0
    known: set[int] = set()

    def usable() -> Iterator[Document]:
        nonlocal short, copies, total
        for total, document in enumerate(source, 1):  # noqa: B007
            words = body_of(document).casefold().split()
            if len(words) < _SHORT:
                short += 1
            elif (key := hash(" ".join(words))) in known:
                copies += 1
            else:
                known.add(key)
                yield document

    sample = heapq.nsmallest(limit, usable(), key=lambda one: (fraction(one.id), one.id))
    if len(sample) < _FEWEST:
        raise InputError(
            f"{path}: {len(sample)} documents of {_SHORT} words or more are too few to train on, it takes "
            f"{_FEWEST}: give more documents (or raise --limit), or search them with a trained model"
        )
    seen, unseen, titled = _split(sample, source)
    of_unseen = {one.id for one in unseen}
    made = all_queries(sample, titled)
    collection = _collection(seen, unseen, [one for one in made if one.id in of_unseen])
    pairs = [(one.query, _cut(one.document)) for one in made if one.id not in of_unseen]
    if len(collection.queries) < _FEWEST_QUERIES or len(pairs) < _FEWEST:
        raise InputError(
            f"{path}: {len(pairs)} + {len(collection.queries)} queries can be made of its documents, "
            "which are too few to train and to measure; give documents that differ more"
        )
    random.Random(0).shuffle(pairs)
    found = source.describe(total)
    if short or copies:
        found.append(f"indexed only: {short:,} of fewer than {_SHORT} words, {copies:,} copies")
    found.append(f"{len(pairs):,} made queries to train on, of {len(seen):,} documents")
    found.append(f"{len(collection.queries):,} to measure with, of {len(unseen):,} that training never sees")
    if len(sample) < _FEW:
        found.append(
            f"{len(sample)} documents are few: the model may learn little, and the numbers are vague"
        )
    return Material(
        documents=source,
        pairs=pairs,
        unseen=collection,
        held_out="made queries of unseen documents",
        max_seq_length=_MAX_SEQ_LENGTH,
        found=found,
        caveats=[_CAVEAT],
        questions=[one.query for one in made if one.kind == "words" and one.id in of_unseen][:_QUESTIONS],
    )


def _open(path: str | Path) -> _Source:
    place = input_path(path)
    kind = kind_of_name(place.name)
    if kind in KINDS and kind != ".txt" and place.is_file():
        return _Files(place)
    if place.is_dir() and not is_corpus(path) and not any(place.glob("*.parquet")):
        return _Files(place)
    return _Records(str(path))


def _split(sample: list[Document], source: _Source) -> tuple[list[Document], list[Document], set[str]]:
    """What training sees, what it does not, and the ids of the documents whose titles are queries.

    A title of several files says too little; of the passages below one heading, the first one drawn has it.
    """
    files = source.files([one.id for one in sample])
    members: dict[str, list[Document]] = defaultdict(list)
    titles: dict[str, tuple[str, str]] = {}
    doubtful: set[str] = set()
    for one, file in zip(sample, files, strict=True):
        members[file].append(one)
        title = one.title.casefold()
        if titles.setdefault(title, (file, one.id))[0] != file:
            doubtful.add(title)
    held: set[str] = set()
    room = _TEST_SHARE * len(sample)
    for file in sorted(members, key=lambda file: (fraction(f"file:{file}"), file)):
        if len(members[file]) <= room:
            held.add(file)
            room -= len(members[file])
    sides: tuple[list[Document], list[Document]] = ([], [])
    for one, file in zip(sample, files, strict=True):
        sides[file in held].append(one)
    return *sides, {id for title, (_, id) in titles.items() if title not in doubtful}


def _collection(seen: list[Document], unseen: list[Document], made: list[MadeQuery]) -> Collection:
    """The made queries of unseen documents, to be found among them and others, all without their titles."""
    corpus = {one.id: body_of(one) for one in unseen}
    below: dict[str, list[str]] = defaultdict(list)
    for one in unseen:
        below[one.title].append(one.id)
    titles = {one.id: one.title for one in unseen}
    queries: dict[str, str] = {}
    qrels: dict[str, dict[str, int]] = {}
    for kind in ("sentence", "title"):  # the later one takes the place of the former
        for query in (query for query in made if query.kind == kind):
            right = below[titles[query.id]] if kind == "title" else [query.id]
            queries[query.id], corpus[query.id] = query.query, query.document
            qrels[query.id] = dict.fromkeys(right, 1)
    corpus |= {one.id: body_of(one) for one in seen[: max(0, _MEASURED - len(unseen))]}
    return Collection(UNSEEN, corpus, queries, qrels)


def _cut(text: str) -> str:
    return " ".join(text.split()[:_TRAINING_WORDS])
