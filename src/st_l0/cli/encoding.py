"""The command that encodes a corpus: a thin shell over public functions.

Libraries are imported inside the command, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

from enum import Enum
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import IdField, MaxActiveDims, TextFields, pruned, refuse_fields
from st_l0.errors import InputError

if TYPE_CHECKING:
    from st_l0.data import Texts
    from st_l0.encoder.sparse_encoder import SparseEncoder


class Format(str, Enum):
    """Who shall read the vectors."""

    jsonl = "jsonl"
    anserini = "anserini"
    seismic = "seismic"
    qdrant = "qdrant"
    elasticsearch = "elasticsearch"


@app.command()
def encode(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
    ],
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A .jsonl, .tsv, .csv, .txt or .parquet file, a BEIR folder or .zip, or an address of one; "
            "with --format also what encode wrote, which is not encoded again.",
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the encoded documents.")],
    dtype: Annotated[
        str, typer.Option(help="float32; or bfloat16 or int8: faster on most new processors, less exact.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Documents encoded at once.")] = 32,
    max_active_dims: MaxActiveDims = None,
    format: Annotated[
        list[Format] | None,
        typer.Option(
            help="Write the vectors for another engine, too, into FOLDER/FORMAT, with a guide; repeatable."
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Queries for that engine: a file, or a BEIR folder."),
    ] = None,
    id_field: IdField = None,
    text_field: TextFields = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Encode a corpus into files that `st-l0 index` takes, under torchrun on many devices.

    Started again after an interruption, it goes on.
    """
    from st_l0.data import read_documents
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.indexing.encode import check_output, encode_corpus
    from st_l0.indexing.shards import is_encoded
    from st_l0.utils.distributed import join, rank

    formats = list(dict.fromkeys(one.value for one in format or ()))
    encoded = bool(formats) and is_encoded(corpus)
    if not encoded:
        check_output(to)
    asked = _check_formats(formats, corpus, to, queries)
    if encoded:
        refuse_fields(corpus, id_field, text_field)
        if max_active_dims is not None:
            raise InputError(f"{corpus}: is encoded already; leave --max-active-dims out")
        encoder = SparseEncoder.from_pretrained(model, trust_remote_code=trust_remote_code)
        _write_formats(formats, encoder, model, corpus, to, asked)
        return
    documents = read_documents(corpus, id_field=id_field, text_fields=text_field or None)
    first = next(documents)  # an unusable corpus should leave no folder behind
    join()
    encoder = SparseEncoder.from_pretrained(model, trust_remote_code=trust_remote_code)
    with writing(to):
        total = encode_corpus(
            encoder,
            chain([first], documents),
            to,
            name=model,
            dtype=dtype,
            batch_size=batch_size,
            max_active_dims=max_active_dims,
        )
    if rank() == 0:
        say(f"{to}: {total} documents encoded{pruned(max_active_dims)}")
    _write_formats(formats, encoder, model, to, to, asked)


def _check_formats(formats: list[str], corpus: str, to: Path, queries: str | None) -> Texts | None:
    """Refuse what cannot be written, before a model is loaded; give the queries."""
    from st_l0.data import open_texts
    from st_l0.indexing.vectors import check_target
    from st_l0.utils.distributed import launched

    if queries is not None and not formats:
        raise InputError("--queries are written for another engine: give --format")
    if formats and launched() > 1:
        raise InputError(
            "--format takes one process: encode first, then start again with it, without torchrun"
        )
    for format in formats:
        check_target(to / format, format, [corpus, queries] if queries else [corpus])
    return None if queries is None else open_texts(queries, "queries")


def _write_formats(
    formats: list[str], encoder: SparseEncoder, model: str, encoded: str | Path, to: Path, asked: Texts | None
) -> None:
    from st_l0.data import Document
    from st_l0.indexing.vectors import GUIDE, write_vectors

    for format in formats:
        queries = () if asked is None else (Document(id, asked[id]) for id in asked.ids())
        with writing(to / format):
            done = write_vectors(encoder, encoded, to / format, format, name=model, queries=queries)
        say(f"{to / format}: {done.documents} documents, {done.queries} queries; see {GUIDE}")
        for note in done.notes():
            say(f"  {note}")
