"""Commands about OpenSearch: what runs on the server."""

from __future__ import annotations

import json
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import ModelName

opensearch = typer.Typer(
    help="Let an OpenSearch cluster encode texts itself.", no_args_is_help=True, add_completion=False
)
app.add_typer(opensearch, name="opensearch")


class Names(str, Enum):
    """What an index calls its features."""

    ids = "ids"
    tokens = "tokens"


@opensearch.command()
def register(
    model: ModelName,
    to: Annotated[str, typer.Option("--to", metavar="INDEX", help="The index, opensearch://HOST:PORT/NAME.")],
    pipeline: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Make a search pipeline with the model as its default."),
    ] = None,
    analyzer: Annotated[
        bool, typer.Option("--analyzer", help="Use the server's own analyzer, if it does the same.")
    ] = False,
    on_data_nodes: Annotated[
        bool,
        typer.Option(
            "--on-data-nodes",
            help="Let data nodes run models where no node has the role ml; the cluster keeps this setting.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for scripts.")] = False,
) -> None:
    """Let the server encode queries, so that clients send texts and need no model."""
    from st_l0.indexing.server_queries import register as run

    found = run(model, to, pipeline=pipeline, analyzer=analyzer, on_data_nodes=on_data_nodes)
    if as_json:
        say(json.dumps(found._asdict()))
        return
    if found.model is None:
        say("the server's analyzer gives the same weights: nothing was uploaded")
    else:
        say(f"model {found.model}: {'was there already' if found.reused else 'registered'}, and runs")
    if found.pipeline is not None:
        say(f"search pipeline {found.pipeline}: made, with this model as its default")
    say(f"POST {found.path}")
    say(json.dumps(found.query))


@opensearch.command()
def archive(
    model: ModelName,
    output: Annotated[Path, typer.Option("--output", help="The zip.")],
    documents: Annotated[
        bool,
        typer.Option("--documents", help="The document side (SPARSE_ENCODING); else the query side."),
    ] = False,
    names: Annotated[Names, typer.Option(help="What the index calls its features.")] = Names.ids,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Write the zip of a model for a server, to be uploaded by other means."""
    ids: dict[str, Any] = {"ids": names is Names.ids}
    with writing(output):
        if documents:
            from st_l0.encoder.sparse_encoder import SparseEncoder
            from st_l0.indexing.document_archive import write_document_archive

            encoder = SparseEncoder.from_pretrained(model, device="cpu", trust_remote_code=trust_remote_code)
            write_document_archive(encoder, output, model, **ids)
        else:
            from st_l0.encoder.queries import QueryEncoder
            from st_l0.indexing.query_archive import write_query_archive

            write_query_archive(QueryEncoder.from_pretrained(model), output, model, **ids)
    say(f"{output}: {'SPARSE_ENCODING' if documents else 'SPARSE_TOKENIZE'}")
