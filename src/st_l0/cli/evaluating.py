"""The command that measures a model: a thin shell over public functions.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.benchmark import (
    BenchmarkName,
    DataRoot,
    Engine,
    EntryName,
    Meta,
    Reference,
    Results,
    Revision,
    Submit,
    TaskNames,
    check_options,
    run_benchmark,
)
from st_l0.cli.fields import BatchSize, ModelName
from st_l0.cli.words import (
    read_weight,
)
from st_l0.errors import InputError
from st_l0.utils.terminal import open_console, to_json

if TYPE_CHECKING:
    pass


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[
        list[Path] | None,
        typer.Option("--data", help="A collection as BEIR has it, folder or .zip; repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Write the numbers to this JSON file, and beside it those of each query and TREC run files.",
        ),
    ] = None,
    index: Annotated[
        str | None,
        typer.Option(help="An index of the documents that exists already, for one --data."),
    ] = None,
    split: Annotated[str, typer.Option(help="Which relevance judgements to take.")] = "test",
    batch_size: BatchSize = 32,
    bm25: Annotated[
        bool, typer.Option("--bm25/--no-bm25", help="Compare with BM25, and with the sum of both.")
    ] = True,
    bm25_weight: Annotated[
        str, typer.Option(help="How much BM25 counts in the sum; auto finds it without labels.")
    ] = "auto",
    language: Annotated[str, typer.Option(help="Of BM25's stop words and stemmer.")] = "english",
    dtype: Annotated[
        str, typer.Option(help="float32; or bfloat16 or int8: faster on most new processors, less exact.")
    ] = "float32",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as one JSON object, for scripts.")
    ] = False,
    benchmark: BenchmarkName = None,
    tasks: TaskNames = None,
    data_root: DataRoot = None,
    name: EntryName = None,
    revision: Revision = None,
    results: Results = None,
    engine: Engine = None,
    reference: Reference = False,
    submit: Submit = False,
    meta: Meta = None,
) -> None:
    """Measure a model on retrieval collections, or on a benchmark of mteb."""
    of_benchmark: dict[str, Any] = {
        "benchmark": benchmark, "tasks": tasks, "data_root": data_root, "name": name, "revision": revision,
        "results": results, "engine": engine, "reference": reference, "submit": submit, "meta": meta,
    }  # fmt: skip
    if check_options(data, dtype, split, of_benchmark):
        run_benchmark(
            model,
            output=output,
            batch_size=batch_size,
            bm25=bm25,
            trust_remote_code=trust_remote_code,
            as_json=as_json,
            **of_benchmark,
        )
        return
    data = data or []
    from st_l0.data import read_collection
    from st_l0.encoder.precision import encoder_precision
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.evaluation import check_results, render, summarise, write_json, write_results
    from st_l0.evaluation import evaluate as run
    from st_l0.evaluation.metrics import PROTOCOL
    from st_l0.evaluation.report import bm25_note, own_documents_note, protocol_note
    from st_l0.index import open_index
    from st_l0.indexing.identity import check_model, place
    from st_l0.utils.paths import input_path

    if output is not None:
        check_results(output, [input_path(folder).resolve().name for folder in data])
    collections = [read_collection(folder, split) for folder in data]
    if len({collection.name for collection in collections}) < len(collections):
        raise InputError(
            "two collections have the same name: rename the folder of one"
        )  # before the long part
    if index is not None and len(collections) > 1:
        raise InputError(f"--index {index}: holds the documents of one collection; give one --data")
    searched = None if index is None else open_index(index, create=False)
    encoder = SparseEncoder.from_pretrained(
        model,
        inference_free=False,  # siamese ones as baselines
        trust_remote_code=trust_remote_code,
    )
    if searched is not None:
        check_model(encoder, searched, str(index))
    weight = read_weight(bm25_weight, "--bm25-weight")
    options: dict[str, Any] = {"batch_size": batch_size, "bm25": bm25 and language, "bm25_weight": weight}
    options["index"] = searched
    found: dict[str, dict[str, Any]] = {collection.name: {} for collection in collections}
    with encoder_precision(encoder, dtype):
        reports = [
            run(encoder, collection, results=found[collection.name], **options) for collection in collections
        ]
    if as_json:
        say(to_json(summarise(reports) | {"protocol": PROTOCOL}))
    else:
        open_console().print(render(reports))
        for note in (bm25_note(reports), own_documents_note(reports), protocol_note()):
            if note:
                say(note)
    if output is not None:
        with writing(output):
            folders = [str(input_path(folder).resolve()) for folder in data]
            write_json(reports, output, made_with={"model": place(model), "data": folders, "split": split})
            write_results(found, output)
