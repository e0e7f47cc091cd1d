"""What mining writes: rows and their record, the index of the documents, and texts of pairs."""

from __future__ import annotations

import filecmp
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from st_l0.data import write_records
from st_l0.errors import InputError
from st_l0.index import check_target, open_index
from st_l0.indexing.identity import check_model, index_metadata
from st_l0.utils.files import FileKind, check_file, replace_file

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index


def _is_row(path: Path) -> bool:
    with path.open(encoding="utf-8") as file:
        return list(json.loads(file.readline())) == ["query_id", "positive_id", "negative_ids"]


ROWS = FileKind("rows of st-l0 mine", _is_row)
RECORD = FileKind(
    "a record of st-l0 mine",
    lambda path: {"fingerprint", "number", "depth"} <= json.loads(path.read_text(encoding="utf-8")).keys(),
)


def check_outputs(rows: Path, record: Path, data: Path, index: Path | None) -> None:
    """Refuse what mining would replace and has not made; for the start, before any work is done.

    Args:
        rows: The file of rows.
        record: That of the settings, without which the rows are another's.
        data: What the rows are made of.
        index: An index of mining's own.

    Raises:
        InputError: There is such a thing, or nothing can be written there.
    """
    if rows.exists() and not record.exists():
        raise InputError(f"{rows}: was not made by mining, and is not replaced; give another output folder")
    check_file(record, RECORD, inputs=[data])
    check_file(rows, ROWS, inputs=[data])
    if index is not None:
        check_target(index)


def open_own(
    folder: Path,
    model: SparseEncoder,
    name: str | Path | None,
    corpus: dict[str, str],
    data: Path,
    words: str | None,
) -> Index:
    """The index of ``corpus``, with ``words`` of a language: new, or as far as an earlier call came."""
    digest = hashlib.sha256()
    for item in corpus.items():
        digest.update(json.dumps(item).encode())
    made_with = {"fingerprint": model.fingerprint()} if name is None else index_metadata(model, name)
    made_of = {"corpus": digest.hexdigest()}
    metadata = made_with | made_of
    index = open_index(folder, vocabulary_size=len(model.query_weights), metadata=metadata, bm25=words)
    check_model(model, index, str(folder))
    if index.metadata.get("corpus") != made_of["corpus"]:
        raise InputError(f"{folder}: was made of other documents than {data} has; give another output folder")
    return index


def write_texts(path: Path, texts: Mapping[str, str], data: Path) -> None:
    """Write the texts of pairs, or make sure that the ones that are there are those."""
    with replace_file(path) as new:
        write_records(new, ({"_id": id, "title": "", "text": text} for id, text in texts.items()))
        if path.exists() and not filecmp.cmp(new, path, shallow=False):
            raise InputError(f"{path}: holds other texts than {data} has; give another output folder")
