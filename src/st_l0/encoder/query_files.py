"""The query side of a checkpoint, read from its files by numpy alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, deserialize

from st_l0.encoder.idf import read_idf
from st_l0.encoder.pretrained import HubOptions, is_bare_mlm, layout, no_encoder, position_limit, siamese
from st_l0.encoder.query_tokenizer import (
    NeedsModelError,
    QueryTokenizer,
    damaged,
    read_json,
    read_tokenizer,
)
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
    kind = layout(checkpoint, hub_options)
    if kind == "mlm-with-idf":
        tokenizer = read_tokenizer(checkpoint, "", hub_options)
        tokenizer.model_max_length = _positions(checkpoint, hub_options)
        return QuerySide(
            tokenizer, read_idf(_required(checkpoint, "idf.json", hub_options), tokenizer), "", None
        )
    if kind == "other":
        raise no_encoder(checkpoint, is_bare_mlm(checkpoint, hub_options))
    settings = read_json(hub_options.find(checkpoint, "config_sentence_transformers.json"))
    folder = _table_folder(checkpoint, hub_options)
    tokenizer = read_tokenizer(checkpoint, folder, hub_options)
    config = read_json(hub_options.find(checkpoint, f"{folder}/config.json"))
    if config.get("path") is None:
        table = _read_weights(checkpoint, f"{folder}/model.safetensors", len(tokenizer), hub_options)
    else:
        found = (
            hub_options.find(checkpoint, name) for name in (f"{folder}/{config['path']}", config["path"])
        )
        file = next(filter(None, found), None)
        if file is None:
            raise InputError(
                f"{checkpoint}: {folder}/config.json names {config['path']}, which is missing: "
                "restore the checkpoint"
            )
        table = read_idf(file, tokenizer)
    prompt = (settings.get("prompts") or {}).get("query") or ""
    return QuerySide(tokenizer, table, prompt, settings.get("max_active_dims"))


def _table_folder(checkpoint: str, hub_options: HubOptions) -> str:
    """Folder of the one module that queries go through."""
    modules = read_json(_required(checkpoint, "modules.json", hub_options), list)
    if len(modules) != 1 or not _is(modules[0].get("type"), "Router"):
        raise siamese(checkpoint)
    room = Path(modules[0].get("path") or "")
    config: dict[str, Any] = {}
    for name in ("router_config.json", "config.json"):  # the latter in older checkpoints
        config = config or read_json(hub_options.find(checkpoint, (room / name).as_posix()))
    route = config.get("structure", {}).get("query", [])
    if len(route) != 1 or not _is(config.get("types", {}).get(route[0]), "SparseStaticEmbedding"):
        raise siamese(checkpoint)
    return (room / str(route[0])).as_posix()


def _is(type_name: Any, kind: str) -> bool:
    return str(type_name).rpartition(".")[2] == kind


def _read_weights(checkpoint: str, name: str, size: int, hub_options: HubOptions) -> np.ndarray:
    path = hub_options.find(checkpoint, name)
    if path is None:
        raise NeedsModelError(f"{checkpoint}: no {name}; save the model again")
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
        return (np.frombuffer(data, "<u2").astype(np.uint32) << 16).view(np.float32)
    if kind not in _NUMBERS:
        raise InputError(f"{path}: the query weights are of type {kind}, not float: restore the checkpoint")
    return np.frombuffer(data, _NUMBERS[kind]).astype(np.float32)


def _positions(checkpoint: str, hub_options: HubOptions) -> int:
    """Where a query of the older layout is cut: at the end of the model's positions."""
    config = read_json(_required(checkpoint, "config.json", hub_options))
    if not {"max_position_embeddings", "model_type"} <= set(config):
        raise NeedsModelError(f"{checkpoint}: config.json does not say how many positions the model has")
    return position_limit(SimpleNamespace(**config))


def _required(checkpoint: str, name: str, hub_options: HubOptions) -> Path:
    path = hub_options.find(checkpoint, name)
    if path is None:
        raise InputError(f"{checkpoint}: no {name}: restore the checkpoint")
    return path
