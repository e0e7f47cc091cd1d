"""From a name to what the demo shows: an index with its model, or a model alone."""

from __future__ import annotations

from pathlib import Path

from st_l0.demo.service import Demo
from st_l0.encoder.queries import QueryEncoder
from st_l0.encoder.query_tokenizer import NeedsModelError
from st_l0.errors import InputError
from st_l0.index import open_index
from st_l0.indexing.identity import load_query_encoder
from st_l0.utils.paths import local_name


def open_demo(target: str, model: str | None = None, *, trust_remote_code: bool = False) -> Demo:
    """Open what is shown; of a model only the query side, wherever that is enough.

    Args:
        target: An index, in a folder or on a server; or the folder or Hub id of a model.
        model: Instead of the one that the index names.
        trust_remote_code: Whether code that comes with the model may run; read it first.

    Raises:
        InputError: There is neither an index nor a model, or the model is not that of the index.
    """
    if _is_index(target):
        index = open_index(target, create=False)
        name = model or index.metadata.get("model")
        if name is None:
            raise InputError(f"{target} does not say which model made it: give --model")
        encoder = load_query_encoder(name, index, target, trust_remote_code=trust_remote_code)
        index.missing([""])  # ids are looked up from the first query on, not read then
        shown = target.rpartition("/")[2].partition("?")[0] if "://" in target else Path(target).name
        return Demo(encoder, name, index, name=shown or target, trust_remote_code=trust_remote_code)
    if model is not None:
        raise InputError(f"{target}: is no index; --model is for an index")
    try:
        return Demo(QueryEncoder.from_pretrained(target), target, name=target)
    except NeedsModelError:
        from st_l0.encoder.sparse_encoder import SparseEncoder

        encoder = SparseEncoder.from_pretrained(target, trust_remote_code=trust_remote_code)
        return Demo(encoder, target, name=target)
    except InputError as error:
        if Path(local_name(target)).exists():
            raise
        raise InputError(f"{error}; and no index") from None


def _is_index(target: str) -> bool:
    if target.startswith(("opensearch:", "opensearch+")):
        return True
    return "://" not in target and (Path(local_name(target)) / "manifest.json").is_file()
