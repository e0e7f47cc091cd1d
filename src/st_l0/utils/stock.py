"""What we use of sentence-transformers, and of transformers' trainer, that they keep to themselves.

That is names with an underscore, and functions and attributes that their references leave out: a release may
move any of them without a word. All are here, under public names, and `tests/utils/test_stock.py` lists them,
so that a release that moves one fails there, by name. What a class has to override keeps its private name
where it is overridden, and is in that list too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from sentence_transformers.base.losses.merged_forward import embed_columns
from sentence_transformers.util import (
    batch_to_device,
    get_device_name,
    load_file_path,
    select_max_active_dims,
)
from torch import nn
from transformers.integrations.integration_utils import (
    INTEGRATION_TO_CALLBACK,
    get_available_reporting_integrations,
)

__all__ = [
    "INTEGRATION_TO_CALLBACK",
    "batch_to_device",
    "can_flatten_inputs",
    "card_text",
    "embed_columns",
    "forward_arguments",
    "get_available_reporting_integrations",
    "get_device_name",
    "load_file_path",
    "load_with",
    "remove_autocast",
    "resolve_prompt",
    "routed_modules",
    "select_max_active_dims",
    "use_one_gpu",
    "without_autocast",
]


def load_with(encoder: Any, loaders: Mapping[str, type[nn.Module]]) -> None:
    """Have an encoder load modules with other classes than its checkpoint names; before its ``__init__``.

    Args:
        encoder: Any encoder of sentence-transformers. Classes that it was given otherwise, as by the trainer,
            stay where ``loaders`` does not name them.
        loaders: The class that loads a module, by the class path in the checkpoint.
    """
    encoder._module_classes = {**encoder._module_classes, **loaders}


def routed_modules(encoder: Any) -> tuple[nn.Module | None, ...] | None:
    """The router of an encoder, then the modules of its routes ``query`` and ``document``.

    ``None`` where the encoder is not one router with these two. Taken from ``_modules``: through the
    attributes it takes as long as all the rest of a query.
    """
    try:
        (router,) = encoder._modules.values()
        routes = router._modules["sub_modules"]._modules
        return (router, *routes["query"]._modules.values(), *routes["document"]._modules.values())
    except (ValueError, KeyError):
        return None


def resolve_prompt(encoder: Any, prompt: str | None, prompt_name: str | None) -> str | None:
    """The prompt that an encoder puts before texts: the one given, the one named, or its default.

    Raises:
        ValueError: The encoder has no prompt of that name.
    """
    return cast("str | None", encoder._resolve_prompt(prompt, prompt_name))


def can_flatten_inputs(encoder: Any) -> bool:
    """Whether an encoder's tokenizers set texts one after the other, without padding (flash attention)."""
    return cast(bool, encoder._can_flatten_inputs())


def forward_arguments(transformer: Any) -> set[str]:
    """Names of the features that a `Transformer` hands to its model; empty where it hands over all."""
    return transformer.model_forward_params or set()


def card_text(encoder: Any) -> str | None:
    """The card that an encoder was loaded with."""
    return cast("str | None", encoder._model_card_text)


def use_one_gpu(arguments: Any) -> None:
    """Keep a trainer from splitting each batch over all GPUs of the machine."""
    arguments._n_gpu = 1


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Take off what accelerate puts around a model's ``forward`` for bf16 and fp16, while the body runs.

    Under it a model gives other vectors than when it is loaded again.
    """
    wrapped, original = model.__dict__.get("forward"), model.__dict__.get("_original_forward")
    if original is None:
        yield
        return
    cast(Any, model).forward = original
    try:
        yield
    finally:
        cast(Any, model).forward = wrapped


def remove_autocast(model: nn.Module) -> None:
    """Take it off for good, after a training."""
    if model.__dict__.pop("_original_forward", None) is not None:
        del model.__dict__["forward"]
