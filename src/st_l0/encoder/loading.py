"""Modules from checkpoints: more than stock loads, and stock classes all the same."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import SparseStaticEmbedding, SpladePooling
from torch import nn
from transformers import AutoTokenizer

from st_l0.encoder.idf import read_idf
from st_l0.encoder.modules import make_pooling
from st_l0.encoder.pretrained import (
    HubOptions,
    check_warm_start,
    has_mlm_head,
    load_config,
    position_limit,
    refusing_code,
)
from st_l0.errors import InputError
from st_l0.head.warm_start import warm_start_head
from st_l0.utils.stock import SPARSE_STATIC_EMBEDDING, SPLADE_POOLING, load_file_path

_ACCESS = ("token", "cache_folder", "revision", "local_files_only")


class AnyDepthPooling(SpladePooling):
    """Loader that admits more than one extra log; what it loads is a stock `SpladePooling`."""

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> SpladePooling:  # type: ignore[override]
        """Load a `SpladePooling` whose activation may have 0 to 3 extra logs."""
        hub_options = {key: kwargs[key] for key in ("subfolder", *_ACCESS) if key in kwargs}
        config = cls.load_config(model_name_or_path, **hub_options)
        activation = config.pop("activation_function", "relu")
        return make_pooling(activation, **config)


class TableLoader(SparseStaticEmbedding):
    """Loader that reads a table given as JSON strictly; what it loads is a stock `SparseStaticEmbedding`.

    Stock finds the file only from inside the checkpoint's folder, puts entries of unknown tokens on [UNK],
    and lets absent tokens weigh 0.
    """

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> SparseStaticEmbedding:  # type: ignore[override]
        """Load a table from weights or, where the configuration names one, from a JSON file."""
        hub_options = {key: kwargs[key] for key in _ACCESS if key in kwargs}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub_options)
        tokenizer: Any = AutoTokenizer.from_pretrained(
            model_name_or_path,
            subfolder=subfolder,
            # Left out, it would ask on a terminal whether code may run.
            **HubOptions(
                **hub_options, trust_remote_code=bool(kwargs.get("trust_remote_code"))
            ).for_transformers(),
        )
        name = config.pop("path", None)
        if name is None:
            loaded: SparseStaticEmbedding = SparseStaticEmbedding.load_torch_weights(
                model_name_or_path,
                subfolder=subfolder,
                **hub_options,
                model=SparseStaticEmbedding(tokenizer, **config),
            )
            return loaded
        found = (
            load_file_path(model_name_or_path, name, subfolder=folder, **hub_options)
            for folder in (subfolder, "")
        )
        file = next(filter(None, found), None)
        if file is None:
            raise InputError(f"{model_name_or_path}: {subfolder}/config.json names {name}, which is missing")
        return SparseStaticEmbedding(tokenizer, weight=torch.from_numpy(read_idf(file, tokenizer)), **config)


# Stock classes that are loaded by ours, under each name that a checkpoint may give them.
LOADERS: dict[str, type[nn.Module]] = {
    **dict.fromkeys(SPLADE_POOLING, AnyDepthPooling),
    **dict.fromkeys(SPARSE_STATIC_EMBEDDING, TableLoader),
}


def start_document_encoder(
    base_model: str, max_seq_length: int, warm_start: Iterable[str] | None, hub_options: HubOptions
) -> Transformer:
    """Load a masked language model; arguments as in `st_l0.SparseEncoder.from_mlm`.

    Raises:
        InputError: It cannot be loaded, has no MLM head and no texts to start one, or has one and such texts.
    """
    headless = not has_mlm_head(base_model, hub_options)
    check_warm_start(base_model, headless=headless, given=warm_start is not None)
    loading = hub_options.for_transformers()
    with refusing_code(base_model):
        transformer: Transformer = Transformer(
            base_model,
            transformer_task="fill-mask",
            max_seq_length=min(max_seq_length, position_limit(load_config(base_model, hub_options))),
            model_kwargs=dict(loading),
            processor_kwargs=dict(loading),
            config_kwargs=dict(loading),
        )
    if warm_start is not None:
        warm_start_head(transformer, warm_start)
    return transformer
