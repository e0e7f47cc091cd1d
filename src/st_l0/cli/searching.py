"""The commands that fill an index and search it: thin shells over public functions.

Libraries are imported inside the commands, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import BatchSize, IdField, MaxActiveDims, ModelName, TextFields, pruned, refuse_fields
from st_l0.cli.words import (
    IndexWeight,
    Labels,
    Language,
    SearchWeight,
    check_words,
    read_weight,
    store_weight,
)
from st_l0.errors import InputError
from st_l0.utils.terminal import is_terminal, printable

if TYPE_CHECKING:
    from st_l0.data import Document
    from st_l0.encoder.queries import QueryEncoder
    from st_l0.encoder.sparse_encoder import SparseEncoder


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
    bm25: Language = None,
    bm25_weight: IndexWeight = None,
    data: Labels = None,
    batch_size: BatchSize = 32,
    max_active_dims: MaxActiveDims = None,
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
    from st_l0.index.calibration import PseudoQueries
    from st_l0.index.protocol import LoadingIndex
    from st_l0.indexing.identity import check_model, index_metadata
    from st_l0.indexing.index import encoded_limit, index_corpus, index_encoded
    from st_l0.indexing.shards import is_encoded, read_shards

    check_target(to)
    check_words(to, bm25, bm25_weight, data)
    encoded = is_encoded(corpus)
    if encoded:
        refuse_fields(corpus, id_field, text_field)
    fields: dict[str, Any] = {"id_field": id_field, "text_fields": text_field or None}
    documents = iter(()) if encoded else read_documents(corpus, **fields)
    first = list(islice(documents, 1))  # an unusable corpus should leave no empty index behind
    encoder = SparseEncoder.from_pretrained(model, trust_remote_code=trust_remote_code)
    limit = encoded_limit(encoder, corpus, max_active_dims) if encoded else max_active_dims
    metadata = index_metadata(encoder, model, max_active_dims=limit)
    with writing(to):
        opened = open_index(to, vocabulary_size=len(encoder.query_weights), metadata=metadata, bm25=bm25)
        check_model(encoder, opened, to)
        before = len(opened)
        if refused is None and isinstance(opened, LoadingIndex):
            refused = Path(f"{to.partition('?')[0].rpartition('/')[2]}.refused.jsonl")
        drawn = PseudoQueries()
        rest: Iterable[Document] = ()  # of what is not drawn from while it goes by
        if encoded:
            added = index_encoded(encoder, corpus, opened, max_active_dims=limit, refused=refused)
            rest = drawn.watch(one for shard in read_shards(corpus) for one in shard.documents)
        else:
            stream = chain(first, documents)
            added = index_corpus(
                encoder,
                stream if opened.bm25 is None else drawn.watch(stream),
                opened,
                batch_size=batch_size,
                max_active_dims=limit,
                refused=refused,
            )
        store_weight(opened, encoder, to, bm25_weight, data, drawn, rest)
    say(f"{to}: {added} documents added, {len(opened)} in all{pruned(limit)}")
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
    bm25: SearchWeight = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what each token and word adds to a score.")
    ] = False,
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
    weight = None if bm25 is None else read_weight(bm25, "--bm25")
    words = "english" if weight else None
    opened: Index = EmbeddedIndex(bm25=words) if corpus else open_index(index, create=False)
    name = model or opened.metadata.get("model")
    if name is None:
        problem = "is a corpus, no index" if corpus else "does not say which model made it"
        raise InputError(f"{index} {problem}: give --model")
    from st_l0.cli.hits import print_hits
    from st_l0.indexing.identity import load_query_encoder

    encoder: QueryEncoder | SparseEncoder
    if corpus:
        from st_l0.encoder.sparse_encoder import SparseEncoder
        from st_l0.index.calibration import PseudoQueries, weigh_by_spread
        from st_l0.indexing.index import index_corpus

        encoder = SparseEncoder.from_pretrained(name, trust_remote_code=trust_remote_code)
        documents = read_documents(index, id_field=id_field, text_fields=text_field or None)
        drawn = PseudoQueries()
        index_corpus(encoder, drawn.watch(documents), opened)
        if weight == "auto":
            weight = weigh_by_spread(opened, encoder, drawn.drawn)
    else:
        encoder = load_query_encoder(name, opened, index, trust_remote_code=trust_remote_code)
    if weight is None or weight == "auto":
        stored = opened.bm25_weight
        if weight == "auto" and stored is None:
            raise InputError(f"{index}: no weight of BM25 is stored in the index: give --bm25 a number")
        weight = stored or 0.0
    if query is not None:
        if not print_hits(encoder, opened, query, k, bm25=weight, explain=explain, as_json=as_json):
            raise InputError(f"the model knows no word of the query {query!r}: nothing to look for")
        return
    for text in _ask():
        if not print_hits(encoder, opened, text, k, bm25=weight, explain=explain):
            say("the model knows no word of this query: nothing to look for")


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
