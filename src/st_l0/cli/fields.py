"""Options of several commands: the model, fields and keys, how many weights a document keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from st_l0.errors import InputError

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Folder or Hub id of an inference-free checkpoint.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Documents encoded at once.")]
IdField = Annotated[
    str | None,
    typer.Option(
        "--id-field", metavar="NAME", help="Field of the ids, where it is not known; empty: the line numbers."
    ),
]
TextFields = Annotated[
    list[str] | None,
    typer.Option(
        "--text-field",
        metavar="NAME",
        help="Field of the texts, where it is not known; repeatable, in order.",
    ),
]
ColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--column",
        metavar="WORD=KEY",
        help="Key of the rows, where it is not known: positive=passage_text; ignore=KEY; repeatable.",
    ),
]


MaxActiveDims = Annotated[
    int | None,
    typer.Option(
        "--max-active-dims", min=1, metavar="N", help="Largest weights that a document keeps; all by default."
    ),
]


def refuse_fields(source: object, id_field: str | None, text_fields: Sequence[str] | None) -> None:
    """Refuse options about the fields of a corpus where there is none.

    Raises:
        InputError: One was given.
    """
    if id_field is not None or text_fields:
        raise InputError(f"{source}: is no corpus; leave --id-field and --text-field out")


def as_columns(options: Sequence[str] | None) -> dict[str, list[str]]:
    """The mapping that ``--column`` gives, from our words to keys.

    Raises:
        InputError: One is not ``WORD=KEY``.
    """
    columns: dict[str, list[str]] = {}
    for option in options or ():
        word, sign, key = option.partition("=")
        if not (word and sign and key):
            raise InputError(f"--column {option}: give WORD=KEY, such as positive=passage_text")
        columns.setdefault(word, []).append(key)
    return columns


def pruned(max_active_dims: int | None) -> str:
    """What messages add of documents that were pruned."""
    return "" if max_active_dims is None else f", at most {max_active_dims} weights each"
