"""The command that counts a corpus into a table of query weights: a thin shell over public functions.

Libraries are imported inside it, so that ``--help`` and usage errors come at once.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from st_l0.cli.app import TrustRemoteCode, app, say, writing
from st_l0.cli.fields import IdField, TextFields
from st_l0.errors import InputError, reason

logger = logging.getLogger(__name__)


@app.command()
def idf(
    corpus: Annotated[
        str,
        typer.Argument(
            metavar="CORPUS",
            help="A .jsonl, .tsv, .csv, .txt or .parquet file, a BEIR folder or .zip, or an address of one.",
        ),
    ],
    tokenizer: Annotated[
        str, typer.Option("--tokenizer", metavar="MODEL", help="Folder or Hub id with the tokenizer.")
    ],
    output: Annotated[Path, typer.Option("--output", help="The idf.json to write.")],
    punctuation: Annotated[
        bool,
        typer.Option("--punctuation/--no-punctuation", help="Punctuation weighs its IDF, or 0."),
    ] = False,
    unseen: Annotated[
        str, typer.Option(metavar="WEIGHT", help="Of tokens in no document; or rarest, the largest weight.")
    ] = "1",
    general: Annotated[
        str | None,
        typer.Option(metavar="TABLE", help="idf.json of a larger corpus, to take the mean with."),
    ] = None,
    general_documents: Annotated[
        int | None, typer.Option(min=1, help="As many documents count as much as the general table.")
    ] = None,
    id_field: IdField = None,
    text_field: TextFields = None,
    trust_remote_code: TrustRemoteCode = False,
) -> None:
    """Count a corpus into a table of query weights. Which table suits which data: docs/which-idf.md."""
    from transformers import AutoTokenizer

    from st_l0.data import read_documents
    from st_l0.encoder.hub_options import HubOptions
    from st_l0.encoder.idf import TABLE, document_frequencies, read_idf, write_idf
    from st_l0.encoder.pretrained import ForeignCodeError, refusing_code
    from st_l0.encoder.smoothing import FEW_DOCUMENTS, GENERAL_DOCUMENTS, how_counted, smooth_idf
    from st_l0.encoder.structure import check_tokenizer_files, document_folder
    from st_l0.utils.files import check_file
    from st_l0.utils.paths import local_name

    if general_documents is not None and general is None:
        raise InputError("--general-documents has no effect without --general")
    weight = _unseen(unseen)
    check_file(output, TABLE, inputs=[corpus] if general is None else [corpus, general])
    try:
        name, hub_options = local_name(tokenizer), HubOptions(trust_remote_code=trust_remote_code)
        folder = document_folder(name, hub_options) if Path(name).is_dir() else ""
        if Path(name).is_dir():
            check_tokenizer_files(name, folder, hub_options)
        with refusing_code(name):
            loaded = AutoTokenizer.from_pretrained(name, subfolder=folder, **hub_options.for_transformers())
    except ForeignCodeError:
        raise
    except (OSError, ValueError) as error:  # their messages do not always name what was looked for
        raise InputError(f"{tokenizer}: no tokenizer found there: {reason(error)}") from error
    documents = read_documents(corpus, id_field=id_field, text_fields=text_field or None)
    texts = (document.text for document in documents)
    options: dict[str, Any] = {
        "unseen": weight,
        "general": None if general is None else read_idf(general, loaded),
        "general_documents": general_documents or GENERAL_DOCUMENTS,
        "punctuation": punctuation,
    }
    frequencies, total = document_frequencies(texts, loaded, progress=True)
    weights = smooth_idf(frequencies, total, loaded, **options)
    with writing(output):
        write_idf(output, weights, loaded)
    say(f"{output}: {len(weights)} tokens; {how_counted(frequencies, total, **options)}")
    if general is None and total < FEW_DOCUMENTS:
        logger.warning(
            "%s: %s documents are few: in collections below %s the mean with MS MARCO's table found more "
            "than the own table alone; --general TABLE takes it, see docs/which-idf.md",
            corpus, f"{total:,}", f"{FEW_DOCUMENTS:,}",
        )  # fmt: skip


def _unseen(text: str) -> float | None:
    """The weight of ``--unseen``, ``None`` for the largest."""
    if text == "rarest":
        return None
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--unseen {text!r:.40} is no weight: give a number, or rarest") from None
