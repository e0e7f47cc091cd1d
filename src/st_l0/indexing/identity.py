"""Which model an index was made with, and whether another one fits it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_l0.encoder.queries import QueryEncoder
from st_l0.encoder.query_tokenizer import NeedsModelError
from st_l0.errors import InputError
from st_l0.indexing.shards import RECORD, encoding_record
from st_l0.utils.paths import input_path, local_name

if TYPE_CHECKING:
    from st_l0.encoder.sparse_encoder import SparseEncoder
    from st_l0.index import Index


# What complaints say of a model whose fingerprint differs: its weights do, or lengths, prompts, tokenizer …
OTHER = "other weights or settings"
# The key of what an index says of pruned documents.
LIMIT = "max_active_dims"


def place(name: str | Path) -> str:
    """Where a model is, in a way that holds in any working folder: its absolute path, or its Hub id."""
    local = Path(local_name(name))
    return str(local.resolve()) if local.exists() else str(name)


def index_metadata(
    model: SparseEncoder, name: str | Path, *, max_active_dims: int | None = None
) -> dict[str, str | int]:
    """What an index remembers of its model, and of its documents.

    That is where the model is, which weights it had and which query side; and, under ``max_active_dims``,
    how many weights a document keeps where fewer than the model leaves.
    """
    metadata: dict[str, str | int] = {"model": place(name), "fingerprint": model.fingerprint()}
    if model.inference_free:
        metadata["query_fingerprint"] = model.query_fingerprint()
    if max_active_dims is not None:
        metadata[LIMIT] = max_active_dims
    return metadata


def smaller_limit(one: int | None, other: int | None) -> int | None:
    """The smaller of two numbers of active dims, where None is no limit."""
    return min(filter(None, (one, other)), default=None)


def check_limit(index: Index, max_active_dims: int | None) -> None:
    """Refuse to add documents of another number of active dims than the index says of its own.

    Raises:
        InputError: They differ.
    """
    found = index.metadata.get(LIMIT)
    if found != max_active_dims:
        has = "all weights of a document" if found is None else f"{found} weights of a document at most"
        mend = "without max_active_dims" if found is None else f"with max_active_dims {found}"
        what = getattr(index, "path", None) or "the index"
        raise InputError(f"{what}: keeps {has}; add to it {mend}, or make a new one")


def check_model(model: SparseEncoder, index: Index, what: str) -> None:
    """Refuse another model than the one that made the index: their vectors do not compare.

    Raises:
        InputError: the fingerprints differ, by weights or by what else vectors depend on.
    """
    found = index.metadata.get("fingerprint")
    if found is not None and not model.has_fingerprint(found):
        raise _other_model(index, what)


def check_encoded(model: SparseEncoder, folder: str | Path) -> dict[str, Any]:
    """What a folder of encoded documents says of itself, if it is of this model.

    Raises:
        InputError: A model of other weights made it, or there is no record.
    """
    record = encoding_record(folder)
    if not model.has_fingerprint(record["fingerprint"]):
        raise InputError(
            f"{input_path(folder) / RECORD}: made with a model of {OTHER} (then at {record['model']}): "
            "use that one, or encode again"
        )
    return record


def load_query_encoder(
    name: str, index: Index, what: str, *, trust_remote_code: bool = False
) -> QueryEncoder | SparseEncoder:
    """Load what encodes queries for an index, without the document side wherever that can be proven right.

    The query side has to be that of the model that made the index; what its documents' encoder has become
    since is of no concern. The whole model is loaded, and all its weights checked, for an index that does not
    know its query side (made by version 0.1), and for a model that only transformers can read.

    Args:
        name: Folder or Hub id of the model.
        index: What is searched.
        what: What complaints call the index.
        trust_remote_code: Whether code that comes with the model may run; read it first.

    Raises:
        InputError: There is no such model, it is not inference-free, or it is not the one of the index.
    """
    made_with = index.metadata.get("query_fingerprint")
    if made_with is not None or "fingerprint" not in index.metadata:
        try:
            encoder = QueryEncoder.from_pretrained(name)
        except NeedsModelError:
            pass
        else:
            if made_with in (None, encoder.query_fingerprint()):
                return encoder
    from st_l0.encoder.sparse_encoder import SparseEncoder

    # Also where the two differ: transformers may read a tokenizer in another way than we do.
    model = SparseEncoder.from_pretrained(name, trust_remote_code=trust_remote_code)
    if made_with is None or model.query_fingerprint() != made_with:
        check_model(model, index, what)
    return model


def _other_model(index: Index, what: str) -> InputError:
    return InputError(
        f"{what} was made with a model of {OTHER} (then at {index.metadata.get('model')}): "
        "use that one, or build the index again"
    )
