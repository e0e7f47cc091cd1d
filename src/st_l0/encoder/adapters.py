"""Adapters of peft (LoRA and kin): a model is saved as what it is with them, merged into the weights."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import Tensor, nn

from st_l0.encoder.backbones import TEXT, first_output
from st_l0.errors import InputError
from st_l0.head.mlm_head import bare_model

_CURE = "remove it, or merge it into the weights (peft's merge_and_unload) and compare the vectors"


def has_adapters(encoder: nn.Module) -> bool:
    """Whether a model of an encoder has layers of an adapter in it."""
    return any(any(_layers(one.model)) for one in _transformers(encoder))


def trained_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """What a training with an adapter moves, by name: the weights of a merged checkpoint do not hold it."""
    return {name: one.detach() for name, one in encoder.named_parameters() if one.requires_grad}


def restore_trained(
    encoder: nn.Module, trained: Mapping[str, Tensor] | None, merged: Mapping[str, Tensor], checkpoint: str
) -> None:
    """Give an encoder with an adapter what a training had moved, see `trained_weights`.

    Args:
        encoder: Made as the training's was: the same base, the same adapter.
        trained: What was saved; ``None`` if the training had no adapter.
        merged: The weights of the checkpoint, in which the adapter is merged.
        checkpoint: What complaints call it.

    Raises:
        InputError: The encoder is another one.
        RuntimeError: A shape differs.
    """
    if trained is None:
        raise InputError(f"{checkpoint} is of a training without an adapter: take the adapter off")
    if not has_adapters(encoder):
        raise InputError(f"{checkpoint} is of a training with an adapter: add the same one to the model")
    if trained.keys() != trained_weights(encoder).keys():
        raise InputError(f"{checkpoint} is of a training with another adapter: add that one to the model")
    encoder.load_state_dict(trained, strict=False)
    with merged_adapters(encoder):
        here = encoder.state_dict()
        for name in sorted(here.keys() & merged.keys()):
            one, other = here[name].cpu(), merged[name]
            if one.shape != other.shape or not torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5):
                raise InputError(
                    f"{checkpoint} is of another model: with its adapter, {name} differs; give the same base "
                    "model and adapter"
                )


@contextmanager
def merged_adapters(encoder: nn.Module) -> Iterator[None]:
    """Put merged copies of the adapters' layers in their place, while the body runs; no weight is moved.

    The memory holds these layers twice meanwhile.

    Raises:
        InputError: With its adapter merged, a model would compute something else.
    """
    with ExitStack() as stack:
        for transformer in _transformers(encoder):
            stack.enter_context(_merged(transformer))
        yield


def _transformers(encoder: nn.Module) -> list[Any]:
    if "peft" not in sys.modules:
        return []
    return [one for one in encoder.modules() if isinstance(one, Transformer)]


@contextmanager
def _merged(transformer: Any) -> Iterator[None]:
    wrapper, model = transformer.model, bare_model(transformer.model)
    layers = list(_layers(model))
    flagged = getattr(model, "_hf_peft_config_loaded", False)  # then transformers saves the adapter alone
    if not layers and not flagged and model is wrapper:
        yield
        return
    _refuse_tied(model, layers)
    expected = _output(transformer)
    copies = [_merge(layer, type(model).__name__) for _, _, layer in layers]
    tied = model.config.tie_word_embeddings
    try:
        transformer.model = model
        if flagged:
            model._hf_peft_config_loaded = False
        for (parent, name, _), merged in zip(layers, copies, strict=True):
            setattr(parent, name, merged)
        # A module of modules_to_save is a copy of its own; tied again at loading, it would be lost.
        head = model.get_output_embeddings()
        if head is not None:
            model.config.tie_word_embeddings = tied and head.weight is model.get_input_embeddings().weight
        _check_equal(_output(transformer), expected, type(model).__name__)
        yield
    finally:
        for parent, name, layer in layers:
            setattr(parent, name, layer)
        model.config.tie_word_embeddings = tied
        if flagged:
            model._hf_peft_config_loaded = True
        transformer.model = wrapper


def _layers(module: nn.Module) -> Iterator[tuple[nn.Module, str, Any]]:
    """The outermost layers of adapters: what holds it, its name there, the layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, child in module.named_children():
        if isinstance(child, BaseTunerLayer) or hasattr(child, "unload_and_optionally_merge_module"):
            yield module, name, child
        else:
            yield from _layers(child)


def _merge(layer: Any, model: str) -> nn.Module:
    """The layer that computes the same without an adapter."""
    layer = copy.deepcopy(layer)
    try:
        if hasattr(layer, "unload_and_optionally_merge_module"):
            merged: nn.Module = layer.unload_and_optionally_merge_module(
                merge=True, safe_merge=True, adapter_names=None
            )
            return merged
        layer.merge(safe_merge=True)
        base: nn.Module = layer.get_base_layer()
        return base
    except Exception as error:  # each kind of adapter has its own
        reason = " ".join(str(error).split())
        raise InputError(
            f"{model}: its adapter cannot be merged ({type(error).__name__}: {reason:.200}): {_CURE}"
        ) from error


@torch.inference_mode()
def _output(transformer: Any) -> Tensor:
    """What the model makes of a short text; what was silenced is far below and would hide the rest."""
    training = transformer.training
    transformer.eval()
    try:
        return first_output(transformer, [TEXT]).clamp(min=-100)
    finally:
        transformer.train(training)


def _check_equal(found: Tensor, expected: Tensor, model: str) -> None:
    # What rounding does, in float32 and in the shorter types, is far below.
    tolerance = 0.005 if expected.dtype == torch.float32 else 0.2
    difference = (found - expected).abs().max() / expected.float().std()
    if not difference <= tolerance:
        raise InputError(
            f"{model}: merged into the weights, its adapter gives other vectors (a logit moves by "
            f"{difference:.2g} standard deviations; is it disabled, or does its kind not merge?): {_CURE}"
        )


def _refuse_tied(model: Any, layers: list[tuple[nn.Module, str, Any]]) -> None:
    """Refuse an adapter on a weight that another module shares: merged, it would change that one too.

    Raises:
        InputError: There is one.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    shared: dict[int, int] = {}
    for _, parameter in model.named_parameters(remove_duplicate=False):
        shared[id(parameter)] = shared.get(id(parameter), 0) + 1
    for _, name, layer in layers:
        if not isinstance(layer, BaseTunerLayer):
            continue
        weight = getattr(layer.get_base_layer(), "weight", None)
        if weight is not None and shared.get(id(weight), 0) > 1:
            raise InputError(
                f"{type(model).__name__}: the adapter is on {name}, whose weights are tied to another "
                f"module's: merged, it would change both; give modules_to_save=[{name!r}] instead"
            )
