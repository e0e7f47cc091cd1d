"""The command that encodes a corpus: a thin shell over one public function.

Libraries are imported inside the command, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import IdField, MaxActiveDims, TextFields, pruned


@app.command()
def encode(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
    ],
    corpus: Annotated[
        Path,
        typer.Argument(
            metavar="CORPUS", help="A .jsonl, .tsv, .csv, .txt or .parquet file, a BEIR folder or .zip."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Folder of the encoded documents.")],
    dtype: Annotated[
        str, typer.Option(help="float32; or bfloat16 or int8: faster on most new processors, less exact.")
    ] = "float32",
    batch_size: Annotated[int, typer.Option(min=1, help="Documents encoded at once.")] = 32,
    max_active_dims: MaxActiveDims = None,
    id_field: IdField = None,
    text_field: TextFields = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Encode a corpus into files that `st-l0 index` takes, under torchrun on many devices.

    Started again after an interruption, it goes on.
    """
    from itertools import chain

    from st_l0.data import read_documents
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.indexing.encode import check_output, encode_corpus
    from st_l0.utils.distributed import join, rank

    check_output(to)
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
