"""Modules from checkpoints: more than stock loads, nothing by halves, and stock classes all the same."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SparseStaticEmbedding, SpladePooling
from sentence_transformers.util import import_from_string
from torch import nn
from transformers import AutoTokenizer

from st_l0.encoder.backbones import check_alone
from st_l0.encoder.hub_options import HubOptions
from st_l0.encoder.leading_space import cure_tokenizer
from st_l0.encoder.modules import check_head, make_pooling, text_tokenizer
from st_l0.encoder.pretrained import (
    check_architecture,
    check_length,
    check_warm_start,
    load_config,
    loading_errors,
    position_limit,
)
from st_l0.encoder.query_files import read_table
from st_l0.encoder.structure import Structure, check_tokenizer_files, inside, read_structure
from st_l0.encoder.weights import LENIENT, check_numbers, check_used, check_whole, lacks_head
from st_l0.errors import InputError
from st_l0.head.warm_start import warm_start_head
from st_l0.utils.stock import load_with

logger = logging.getLogger(__name__)

Stock = TypeVar("Stock", bound=nn.Module)

_AS_IN_TRANSFORMERS = {
    **{name: name for name in ("token", "revision", "local_files_only")},
    "cache_folder": "cache_dir",
}
_ACCESS = ("token", "cache_folder", "revision", "local_files_only")


class AnyDepthPooling(SpladePooling):
    """Loader that admits more than one extra log; what it loads is a stock `SpladePooling`."""

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> SpladePooling:  # type: ignore[override]
        """Load a `SpladePooling` whose activation may have 0 to 3 extra logs."""
        hub_options = {key: kwargs[key] for key in ("subfolder", *_ACCESS) if key in kwargs}
        config = cls.load_config(model_name_or_path, **hub_options)
        activation = config.pop("activation_function", "relu")
        try:
            return make_pooling(activation, **config)
        except InputError as error:
            place = inside(hub_options.get("subfolder", ""), cls.config_file_name)
            raise InputError(f"{model_name_or_path}: {place}: {error}") from None


class TableLoader(SparseStaticEmbedding):
    """Loader that reads a table strictly; what it loads is a stock `SparseStaticEmbedding`.

    Stock takes integers for weights. From inside the checkpoint's folder only it finds a table given as JSON,
    puts entries of unknown tokens on [UNK], and lets absent tokens weigh 0.
    """

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> SparseStaticEmbedding:  # type: ignore[override]
        """Load a table from weights or, where the configuration names one, from a JSON file."""
        access = {key: kwargs[key] for key in _ACCESS if key in kwargs}
        # Left out, trust_remote_code would ask on a terminal whether code may run.
        hub_options = HubOptions(**access, trust_remote_code=bool(kwargs.get("trust_remote_code")))
        tokenizer: Any = AutoTokenizer.from_pretrained(
            model_name_or_path, subfolder=subfolder, **hub_options.for_transformers()
        )
        table = read_table(model_name_or_path, subfolder, tokenizer, hub_options)
        if table is None:  # older formats
            loaded = SparseStaticEmbedding.load(model_name_or_path, subfolder=subfolder, **access)
            check_numbers(loaded, f"{model_name_or_path}: {inside(subfolder, 'pytorch_model.bin')}", None)
            return loaded
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **access)
        config.pop("path", None)
        return SparseStaticEmbedding(tokenizer, weight=torch.from_numpy(table), **config)


class CheckedTransformer(Transformer):
    """Loader that refuses weights that are not whole; what it loads is a stock `Transformer`.

    Stock fills whatever is missing with random numbers.
    """

    stock: ClassVar[type[Transformer]] = Transformer
    headless = False  # lacks the MLM head and nothing else

    @classmethod
    def load(cls, model_name_or_path: str, *args: Any, **kwargs: Any) -> Transformer:  # type: ignore[override]
        """Load a `Transformer` with the very weights that it was saved with."""
        loaded: CheckedTransformer = super().load(model_name_or_path, *args, **kwargs)
        return loaded.as_stock()

    def as_stock(self) -> Transformer:
        """The same object, as one of the stock class."""
        vars(self).pop("headless", None)
        self.__class__ = self.stock  # type: ignore[assignment]
        return self

    def _load_model(self, *args: Any, **kwargs: Any) -> Any:
        name, _, _, backend, adapter = args
        if backend != "torch" or adapter:  # whose tensors have names of their own
            return super()._load_model(*args, **kwargs)
        load: Any = super()._load_model
        folder = kwargs.get("subfolder", "")
        try:
            model, report = load(*args, **kwargs, **LENIENT)
        except OSError as error:
            if error.errno is None and folder:  # transformers', which names the checkpoint only
                raise OSError(f"{folder}: {error}") from error
            raise
        hub_options = HubOptions(
            **{option: kwargs[key] for option, key in _AS_IN_TRANSFORMERS.items() if key in kwargs}
        )
        file = hub_options.find(name, inside(folder, "model.safetensors"))
        place = str(file or Path(name, folder))
        self._check(model, report, place)
        check_numbers(model, place, file)
        if model.dtype == torch.bfloat16:
            _tell_bfloat16(name)
        return model

    def _check(self, model: Any, report: Any, place: str) -> None:
        check_whole(model, report, place)


@cache
def _tell_bfloat16(name: str) -> None:
    """Say once a process that weights were rounded."""
    logger.warning(
        "%s: its weights are bfloat16, rounded so far that other tokens weigh than in float32; "
        "publish models in float32 or float16",
        name,
    )


class _CheckedMLMTransformer(CheckedTransformer, MLMTransformer):  # type: ignore[misc]
    stock = MLMTransformer


class _BareTransformer(CheckedTransformer):
    """Loads a model that may lack the MLM head, or have parts of other uses."""

    def _check(self, model: Any, report: Any, place: str) -> None:
        self.headless = lacks_head(model, report, place)


class _PartTransformer(CheckedTransformer):
    """Loads a model of any use, whose weights may be a part of those of another use."""

    def _check(self, model: Any, report: Any, place: str) -> None:
        # Without a task of its own a model is asked for hidden states, which no pooler makes.
        pooled = self.transformer_task != "feature-extraction"
        poolers = [name for name in report["missing_keys"] if "pooler." in name and not pooled]
        check_used(model, report, place, poolers)


# Stock classes that are loaded by ours, by name: checkpoints give them under several paths.
_LOADERS: dict[str, type[nn.Module]] = {
    "Transformer": CheckedTransformer,
    "MLMTransformer": _CheckedMLMTransformer,
    "SpladePooling": AnyDepthPooling,
    "SparseStaticEmbedding": TableLoader,
}


def loaders(checkpoint: str, structure: Structure) -> dict[str, type[nn.Module]]:
    """The class of ours that loads a module, by the class path in the checkpoint.

    Raises:
        InputError: sentence-transformers has no class that the checkpoint names.
    """
    found = {}
    for module in structure.modules:
        if not module.type_name.startswith("sentence_transformers."):
            continue  # code of the checkpoint's own
        try:
            import_from_string(module.type_name)
        except (ImportError, AttributeError):
            raise InputError(
                f"{checkpoint}: its module {module.folder!r} is a {module.type_name}, which the installed "
                "sentence-transformers does not have: restore the checkpoint, or install the version that "
                "saved it"
            ) from None
        if module.kind in _LOADERS:
            found[module.type_name] = _LOADERS[module.kind]
    return found


def load_stock(kind: type[Stock], checkpoint: str, device: str, hub_options: HubOptions) -> Stock:
    """Load an encoder of sentence-transformers, such as a `CrossEncoder`, from weights that are whole.

    Args:
        kind: Its class.
        checkpoint: Folder or Hub id; of one without ``modules.json`` the weights are taken as they are.
        device: Where to put it.
        hub_options: How to reach it.

    Raises:
        InputError: A module is missing, or a weight of its model.
    """
    encoder = kind.__new__(kind)
    if hub_options.find(checkpoint, "modules.json") is not None:
        modules = read_structure(checkpoint, hub_options).modules
        load_with(encoder, {one.type_name: _PartTransformer for one in modules if one.kind == "Transformer"})
    encoder.__init__(checkpoint, device=device, **asdict(hub_options))  # type: ignore[misc]
    return encoder


def start_document_encoder(
    base_model: str,
    max_seq_length: int,
    warm_start: Iterable[str] | None,
    hub_options: HubOptions,
    *,
    trained: bool = False,
) -> Transformer:
    """Load a masked language model; arguments as in `st_l0.SparseEncoder.from_mlm`.

    Args:
        base_model: As there.
        max_seq_length: As there.
        warm_start: As there.
        hub_options: As there.
        trained: It is an encoder already, whose tokenizer stays as it is; see `st_l0.encoder.leading_space`
            for what a new one gets.

    Raises:
        InputError: It cannot be loaded, has no MLM head and no texts to start one, or has one and such texts;
            or its tokenizer cannot be given what it needs.
    """
    check_length(max_seq_length, "max_seq_length", least=3)  # a word between two special tokens
    loading = hub_options.for_transformers()
    config = load_config(base_model, hub_options)
    check_architecture(base_model, config)
    with loading_errors(base_model, hub_options):
        check_tokenizer_files(base_model, "", hub_options)
        transformer = _BareTransformer(
            base_model,
            transformer_task="fill-mask",
            max_seq_length=min(max_seq_length, position_limit(config)),
            model_kwargs=dict(loading),
            processor_kwargs=dict(loading),
            config_kwargs=dict(loading),
        )
        check_head(transformer)
        check_alone(transformer)
        if not trained:
            transformer.processor = cure_tokenizer(text_tokenizer(transformer))
    headless = transformer.headless
    check_warm_start(base_model, headless=headless, given=warm_start is not None)
    started: Transformer = transformer.as_stock()
    if warm_start is not None:
        warm_start_head(started, warm_start)
    return started
