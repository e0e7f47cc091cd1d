"""Commands about models, indexes and searching: thin shells over one public function each.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import IdField, TextFields, refuse_fields
from st_l0.errors import InputError
from st_l0.utils.terminal import is_terminal, open_console, printable, to_json

if TYPE_CHECKING:
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Documents encoded at once.")]


@app.command()
def evaluate(
    model: ModelName,
    data: Annotated[
        list[Path], typer.Option("--data", help="A collection as BEIR has it, folder or .zip; repeatable.")
    ],
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
    bm25: Annotated[bool, typer.Option("--bm25/--no-bm25", help="Compare with BM25.")] = True,
    dtype: Annotated[
        str, typer.Option(help="float32; or bfloat16 or int8: faster on most new processors, less exact.")
    ] = "float32",
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers as one JSON object, for scripts.")
    ] = False,
) -> None:
    """Measure a model on retrieval collections."""
    from st_l0.data import read_collection
    from st_l0.encoder.precision import encoder_precision
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.evaluation import check_results, render, summarise, write_json, write_results
    from st_l0.evaluation import evaluate as run
    from st_l0.index import open_index
    from st_l0.indexing.identity import check_model
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
    options: dict[str, Any] = {"batch_size": batch_size, "bm25": bm25, "progress": is_terminal(sys.stderr)}
    options["index"] = searched
    results: dict[str, dict[str, Any]] = {collection.name: {} for collection in collections}
    with encoder_precision(encoder, dtype):
        reports = [
            run(encoder, collection, results=results[collection.name], **options)
            for collection in collections
        ]
    if as_json:
        say(to_json(summarise(reports)))
    else:
        open_console().print(render(reports))
    if output is not None:
        with writing(output):
            write_json(reports, output)
            write_results(results, output)


def _check_index(folder: Path | None) -> None:
    """Check an index instead of making one; runs before the other arguments are asked for."""
    if folder is None:
        return
    from st_l0.index.embedded.checking import check_index

    found = check_index(folder)
    for problem in found.problems:
        typer.echo(f"error: {printable(problem)}", err=True)
    if found.problems:
        raise typer.Exit(2)
    place = f"{found.documents} documents, {found.segments} segments"
    say(f"{folder}: the index is whole ({place})")
    if found.unchecked:
        say(f"{found.unchecked} segments have no checksums yet: a changed weight would not show")
    raise typer.Exit


@app.command()
def index(
    model: ModelName,
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A .jsonl, .tsv, .csv, .txt or .parquet file, a BEIR folder or .zip, or what encode wrote; "
            "or an address of one, such as s3://bucket/corpus.jsonl.gz.",
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="The index, or opensearch://HOST:PORT/NAME; one that exists is added to.",
        ),
    ],
    batch_size: BatchSize = 32,
    id_field: IdField = None,
    text_field: TextFields = None,
    refused: Annotated[
        Path | None,
        typer.Option(
            "--refused",
            metavar="FILE",
            help="Documents that a server refuses, with its reasons; NAME.refused.jsonl without this option.",
        ),
    ] = None,
    trust_remote_code: TrustRemoteCode = False,
    _check: Annotated[
        Path | None,
        typer.Option(
            "--check",
            metavar="FOLDER",
            callback=_check_index,
            is_eager=True,
            help="Only read the whole index in FOLDER and name each damaged file; takes no MODEL and CORPUS.",
        ),
    ] = None,
) -> None:
    """Encode a corpus into an index. Started again after an interruption, it goes on."""
    from st_l0.data import read_documents
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import check_target, open_index
    from st_l0.index.protocol import LoadingIndex
    from st_l0.indexing.identity import check_model, index_metadata
    from st_l0.indexing.index import index_corpus, index_encoded
    from st_l0.indexing.shards import is_encoded

    check_target(to)
    encoded = is_encoded(corpus)
    if encoded:
        refuse_fields(corpus, id_field, text_field)
    fields: dict[str, Any] = {"id_field": id_field, "text_fields": text_field or None}
    documents = iter(()) if encoded else read_documents(corpus, **fields)
    first = list(islice(documents, 1))  # an unusable corpus should leave no empty index behind
    encoder = SparseEncoder.from_pretrained(model, trust_remote_code=trust_remote_code)
    metadata = index_metadata(encoder, model)
    with writing(to):
        opened = open_index(to, vocabulary_size=len(encoder.query_weights), metadata=metadata)
        check_model(encoder, opened, to)
        before = len(opened)
        if refused is None and isinstance(opened, LoadingIndex):
            refused = Path(f"{to.partition('?')[0].rpartition('/')[2]}.refused.jsonl")
        if encoded:
            added = index_encoded(encoder, corpus, opened, refused=refused)
        else:
            added = index_corpus(
                encoder, chain(first, documents), opened, batch_size=batch_size, refused=refused
            )
    say(f"{to}: {added} documents added, {len(opened)} in all")
    if before:
        say("documents whose ids were in the index already were left as they are")


@app.command()
def search(
    index: Annotated[
        str,
        typer.Argument(
            metavar="INDEX",
            help="The index; or, with --model, a corpus that is encoded for this search only.",
        ),
    ],
    query: Annotated[str | None, typer.Argument(help="Without one, a prompt asks for queries.")] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="Documents to find.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Show what each token adds to a score.")] = False,
    model: Annotated[
        str | None, typer.Option("--model", help="Instead of the model that the index names.")
    ] = None,
    id_field: IdField = None,
    text_field: TextFields = None,
    trust_remote_code: TrustRemoteCode = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the hits as one JSON object, for scripts.")
    ] = False,
) -> None:
    """Find the best documents for a query."""
    from st_l0.data import is_corpus, read_documents
    from st_l0.index import EmbeddedIndex, Index, open_index

    if query is None and as_json:
        raise InputError("--json answers one query: give QUERY")
    if query is None and not is_terminal(sys.stdin):
        raise InputError("no QUERY was given, and there is no terminal to ask for one")
    corpus = is_corpus(index)
    if not corpus:
        refuse_fields(index, id_field, text_field)
    opened: Index = EmbeddedIndex() if corpus else open_index(index, create=False)
    name = model or opened.metadata.get("model")
    if name is None:
        problem = "is a corpus, no index" if corpus else "does not say which model made it"
        raise InputError(f"{index} {problem}: give --model")
    from st_l0.cli.hits import print_hits
    from st_l0.indexing.identity import load_query_encoder

    encoder: QueryEncoder | SparseEncoder
    if corpus:
        from st_l0.encoder.sparse_encoder import SparseEncoder
        from st_l0.indexing.index import index_corpus

        encoder = SparseEncoder.from_pretrained(name, trust_remote_code=trust_remote_code)
        documents = read_documents(index, id_field=id_field, text_fields=text_field or None)
        index_corpus(encoder, documents, opened)
    else:
        encoder = load_query_encoder(name, opened, index, trust_remote_code=trust_remote_code)
    if query is not None:
        if not print_hits(encoder, opened, query, k, explain=explain, as_json=as_json):
            raise InputError(f"the model knows no word of the query {query!r}: nothing to look for")
        return
    for text in _ask():
        if not print_hits(encoder, opened, text, k, explain=explain):
            say("the model knows no word of this query: nothing to look for")


@app.command()
def quickstart(
    output: Annotated[Path | None, typer.Option("--output", help="Folder for the result.")] = None,
    base_model: Annotated[
        str | None, typer.Option("--base-model", metavar="ID", help="The model to start from.")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Docstrings to use at most.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Train, evaluate and search on this machine, in one go."""
    from st_l0.quickstart.pipeline import run_quickstart

    options: dict[str, Any] = {
        "output": output,
        "base_model": base_model,
        "max_steps": max_steps,
        "limit": limit,
        "trust_remote_code": trust_remote_code or None,
    }
    with writing(output or "runs/quickstart"):
        run_quickstart(**{name: value for name, value in options.items() if value is not None})


@app.command()
def export(
    model: ModelName,
    output: Annotated[Path, typer.Option("--output", help="Folder for the copy.")],
    half: Annotated[bool, typer.Option("--half/--whole", help="Weights as float16, half the size.")] = True,
    max_seq_length: Annotated[int | None, typer.Option(min=8, help="Tokens of a document.")] = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Copy a trained checkpoint for others to use."""
    from st_l0.hub.exporting import export as run

    with writing(output):
        folder = run(
            model, output, half=half, max_seq_length=max_seq_length, trust_remote_code=trust_remote_code
        )
    say(f"model: {folder}")


def _ask() -> Iterator[str]:
    while True:
        try:
            query = input("query> ")
        except EOFError:
            typer.echo()
            return
        if not query.strip():
            return
        yield query
