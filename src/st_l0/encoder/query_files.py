"""The query side of a checkpoint, read from its files by numpy alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.idf import Vocabulary, check_ids, read_idf
from st_l0.encoder.leading_space import first_word_differs, tell_first_words
from st_l0.encoder.pretrained import (
    damaged,
    layout,
    loading_errors,
    no_encoder,
    position_limit,
    read_json,
    read_settings,
    required,
    siamese,
)
from st_l0.encoder.query_tokenizer import NeedsModelError, QueryTokenizer, read_tokenizer
from st_l0.encoder.structure import check_tokenizer_files, inside, read_structure
from st_l0.errors import InputError

_NUMBERS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


class QuerySide(NamedTuple):
    """What the files say: the table as it lies there, special tokens and negative weights included."""

    tokenizer: QueryTokenizer
    table: np.ndarray
    prompt: str
    max_active_dims: int | None


def read_query_side(checkpoint: str, hub_options: HubOptions) -> QuerySide:
    """Read tokenizer, table and settings; the errors are those of `QueryEncoder.from_pretrained`."""
    side = _read(checkpoint, hub_options)
    if first_word_differs(side.tokenizer.backend_tokenizer):
        tell_first_words(checkpoint)
    return side


def _read(checkpoint: str, hub_options: HubOptions) -> QuerySide:
    kind = layout(checkpoint, hub_options)
    if kind == "other":
        raise no_encoder(checkpoint, hub_options)
    with loading_errors(checkpoint, hub_options):
        if kind == "mlm-with-idf":
            tokenizer = read_tokenizer(checkpoint, "", hub_options)
            tokenizer.model_max_length = _positions(checkpoint, hub_options)
            table = read_idf(required(checkpoint, "idf.json", hub_options), tokenizer)
            return QuerySide(tokenizer, table, "", None)
        settings = read_settings(checkpoint, hub_options)
        folder = _table_folder(checkpoint, hub_options)
        check_tokenizer_files(checkpoint, folder, hub_options, saved=True)
        tokenizer = read_tokenizer(checkpoint, folder, hub_options)
        found = read_table(checkpoint, folder, tokenizer, hub_options)
        if found is None:
            raise NeedsModelError(f"{checkpoint}: no {folder}/model.safetensors; save the model again")
        prompt = settings.get("prompts", {}).get("query") or ""
        return QuerySide(tokenizer, found, prompt, settings.get("max_active_dims"))


def read_table(
    checkpoint: str, folder: str, tokenizer: Vocabulary, hub_options: HubOptions
) -> np.ndarray | None:
    """Read the query weights of a checkpoint, from safetensors or, where the configuration names one, JSON.

    Args:
        checkpoint: Folder or Hub id.
        folder: Folder of the table within it.
        tokenizer: The table has a weight for each of its tokens.
        hub_options: How to reach it.

    Returns:
        ``(vocabulary,)``, float32; ``None`` if there is neither file (older formats).

    Raises:
        InputError: The table is missing, damaged, does not fit, or holds what is no finite number.
    """
    name = read_json(hub_options.find(checkpoint, inside(folder, "config.json"))).get("path")
    if name is None:
        path = hub_options.find(checkpoint, inside(folder, "model.safetensors"))
        if path is None:
            return None
        vocabulary = tokenizer.get_vocab()
        check_ids(vocabulary, f"{checkpoint}: ")
        return _read_weights(path, len(vocabulary))
    found = (hub_options.find(checkpoint, place) for place in (inside(folder, str(name)), str(name)))
    file = next(filter(None, found), None)
    if file is None:
        raise InputError(
            f"{checkpoint}: {inside(folder, 'config.json')} names {name}, which is missing: "
            "restore the checkpoint"
        )
    return read_idf(file, tokenizer)


def _table_folder(checkpoint: str, hub_options: HubOptions) -> str:
    """Folder of the one module that queries go through."""
    query = read_structure(checkpoint, hub_options).query
    if len(query) != 1 or query[0].kind != "SparseStaticEmbedding":
        raise siamese(checkpoint)
    return query[0].folder


def _read_weights(path: Path, size: int) -> np.ndarray:
    try:
        tensors = dict(deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise damaged(path, error) from None
    if set(tensors) != {"weight"}:
        raise InputError(f"{path}: holds {sorted(tensors)} instead of 'weight': restore the checkpoint")
    kind, shape, data = (tensors["weight"][key] for key in ("dtype", "shape", "data"))
    if shape != [size]:
        raise InputError(
            f"{path}: the query weights have shape {shape}, but the tokenizer knows {size} tokens: "
            "restore the checkpoint"
        )
    if kind == "BF16":  # the upper half of a float32
        table = (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    elif kind in _NUMBERS:
        table = np.frombuffer(data, _NUMBERS[kind]).astype(np.float32)
    else:
        raise InputError(f"{path}: the query weights are of type {kind}, not float: restore the checkpoint")
    if not np.isfinite(table).all():
        token = int(np.flatnonzero(~np.isfinite(table))[0])
        raise InputError(f"{path}: weight of token {token} is {table[token]}: restore the checkpoint")
    return table


def _positions(checkpoint: str, hub_options: HubOptions) -> int:
    """Where a query of the older layout is cut: at the end of the model's positions."""
    config = read_json(required(checkpoint, "config.json", hub_options))
    if not {"max_position_embeddings", "model_type"} <= set(config):
        raise NeedsModelError(f"{checkpoint}: config.json does not say how many positions the model has")
    return position_limit(SimpleNamespace(**config))
