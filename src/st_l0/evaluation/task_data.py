"""The data of mteb's tasks: from folders on this machine in place of the Hub, and looked at before a run."""

from __future__ import annotations

import copy
import hashlib
import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from st_l0.data import Collection, read_collection, read_records
from st_l0.data.parts import splits_of
from st_l0.errors import InputError, is_machines, reason, require
from st_l0.utils.paths import local_path

logger = logging.getLogger(__name__)

# What the folders of BEIR's archives are called, where mteb has another name.
_BEIR_NAMES = {"dbpedia": "dbpedia-entity", "touche2020": "webis-touche2020"}


def from_folders(task: Any, root: str | Path) -> Any:
    """A copy of a task whose data come from a folder of folders, one a task, as `read_collection` reads it.

    The folder of a task is called as mteb calls the task or its data set, or as BEIR calls it, in whatever
    case: ``SciFact``, ``scifact``, ``nano-scifact-retrieval``; also ``.zip``. Of a task with several subsets
    it holds a folder a subset. A task that gives the documents to rank needs ``top_ranked.jsonl`` in it, with
    ``query-id`` and ``corpus-ids``. Where there is one split only, it is taken, whatever its name.

    The revision of the data becomes a digest of what was read, so that results say what they are of.

    Args:
        task: A retrieval or reranking task.
        root: The folder.

    Raises:
        InputError: There is no such folder, or it is no collection.
    """
    retrieval = require("mteb.abstasks.retrieval_dataset_loaders", "eval")
    name, metadata = task.metadata.name, task.metadata
    if metadata.type.startswith("Instruction"):
        raise InputError(
            f"task {name}: its queries come with instructions, which a folder cannot hold; leave it out"
        )
    folder = _find(local_path(root), _names_of(task), f"task {name}")
    digest = hashlib.sha256()
    data: dict[str, dict[str, Any]] = {}
    for subset in task.hf_subsets:
        place = folder if subset == "default" else _find(folder, [subset], f"subset {subset} of task {name}")
        for split in task.eval_splits:
            there = splits_of(place)
            only = there[0] if split not in there and len(there) == 1 else split
            collection = read_collection(place, only)
            ranked = _top_ranked(place) if metadata.type == "Reranking" else None
            _feed(digest, collection, ranked)
            data.setdefault(subset, {})[split] = retrieval.RetrievalSplitData(
                corpus=_table(collection.corpus),
                queries=_table(collection.queries),
                relevant_docs={query: dict(judged) for query, judged in collection.qrels.items()},
                top_ranked=ranked,
            )
    local = copy.copy(task)
    revision = f"local-{digest.hexdigest()[:32]}"
    local.metadata = metadata.model_copy(update={"dataset": {**metadata.dataset, "revision": revision}})
    local.dataset = data
    local.data_loaded = True
    return local


def load(task: Any) -> None:
    """Load a task's data as mteb does, from the Hub or its cache.

    Raises:
        InputError: They cannot be reached.
    """
    if task.data_loaded:
        return
    try:
        task.load_data()
        task.convert_v1_dataset_format_to_v2(num_proc=None)
    except Exception as error:
        if isinstance(error, OSError) and is_machines(error):
            raise
        task.dataset, task.data_loaded = None, False
        raise InputError(
            f"task {task.metadata.name}: its data {task.metadata.dataset['path']} cannot be loaded "
            f"({reason(error, 160)}); go online, or give a folder by --data-root"
        ) from error


def check(task: Any) -> set[str]:
    """Refuse data on which nothing can be measured, and warn of relevant documents that no search can find.

    Args:
        task: A task whose data are loaded.

    Returns:
        Queries whose id is a document's too; mteb decides by task whether that document is a hit.

    Raises:
        InputError: There are no documents, queries or judgements, or a document to rank is not in the corpus.
    """
    own: set[str] = set()
    for subset, splits in task.dataset.items():
        for split, data in splits.items():
            place = (
                f"task {task.metadata.name}" + (f", {subset}" if subset != "default" else "") + f", {split}"
            )
            documents, queries = set(data["corpus"]["id"]), set(data["queries"]["id"])
            judged = {query: found for query, found in data["relevant_docs"].items() if found}
            for what, some in (("documents", documents), ("queries", queries), ("judgements", judged)):
                if not some:
                    raise InputError(f"{place}: has no {what}, so there is nothing to measure; leave it out")
            if not queries & judged.keys():
                raise InputError(f"{place}: no judgement is about one of its queries; mend the ids")
            relevant = {id for found in judged.values() for id in found}
            if missing := len(relevant - documents):
                logger.warning(
                    "%s: %d of %d judged documents are not in the corpus; they count as not found",
                    place, missing, len(relevant),
                )  # fmt: skip
            for query, ranked in (data.get("top_ranked") or {}).items():
                stray = next((id for id in ranked if id not in documents), None)
                if stray is not None:
                    raise InputError(
                        f"{place}: document {stray!r:.40}, to be ranked for query {query!r:.40}, is not in "
                        "the corpus; add it or take it from the list"
                    )
            own |= queries & documents
    return own


def _names_of(task: Any) -> list[str]:
    data = str(task.metadata.dataset.get("path", "")).split("/")[-1]
    short = task.metadata.name.removesuffix("Retrieval")  # as NanoSciFact, of the first NanoBEIR
    return [task.metadata.name, data, short, _BEIR_NAMES.get(data.lower(), "")]


def _find(root: Path, names: Iterable[str], what: str) -> Path:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; give one with a folder for each task")
    names = list(dict.fromkeys(filter(None, names)))
    wanted = [_plain(name) for name in names]
    there = {_plain(entry.name.removesuffix(".zip")): entry for entry in sorted(root.iterdir(), reverse=True)}
    found = next((there[name] for name in wanted if name in there), None)
    if found is None:
        raise InputError(f"{root}: no folder for {what}; call it {' or '.join(names)}")
    return found


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _top_ranked(folder: Path) -> dict[str, list[str]]:
    path = next(
        (path for end in ("jsonl", "jsonl.gz") if (path := folder / f"top_ranked.{end}").is_file()), None
    )
    if path is None:
        raise InputError(
            f"{folder}: no top_ranked.jsonl, the documents to rank; give query-id and corpus-ids a line"
        )
    ranked = {}
    for number, record in read_records(path):
        query, documents = record.get("query-id"), record.get("corpus-ids")
        if query is None or not isinstance(documents, list):
            raise InputError(f"{path}:{number}: no query-id and corpus-ids; give both, the second a list")
        ranked[str(query)] = [str(id) for id in documents]
    return ranked


def _table(texts: dict[str, str]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict({"id": list(texts), "text": list(texts.values())})


def _feed(digest: Any, collection: Collection, ranked: dict[str, list[str]] | None) -> None:
    """Let a digest know all that a score depends on."""
    for part in (collection.corpus, collection.queries):
        for id, text in part.items():
            digest.update(f"{id}\0{text}\0".encode())
        digest.update(b"\1")
    digest.update(
        repr((sorted((q, sorted(d.items())) for q, d in collection.qrels.items()), ranked)).encode()
    )
