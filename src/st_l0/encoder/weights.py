"""Whether the weights of a checkpoint are whole: what transformers found when it read them, judged."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from st_l0.errors import InputError

# For `from_pretrained`: it tells what does not fit, instead of filling it with random numbers.
LENIENT: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}

# Parts of other uses of a model and former buffers: no vector depends on them.
_UNUSED = re.compile(r"(^|\.)(pooler|seq_relationship)\.|(^|\.)(position_ids|token_type_ids|inv_freq)$")


def lacks_head(model: Any, report: Mapping[str, Any], place: str) -> bool:
    """Whether a masked language model was loaded from weights without a head; all else has to be there.

    Args:
        model: The model, as transformers loaded it (on the meta device will do).
        report: What transformers reported beside it.
        place: What complaints call the weights.

    Raises:
        InputError: A parameter is missing or of another shape, or the weights hold more of a part that the
            model has, such as a further layer.
    """
    base = f"{model.base_model_prefix}."
    head = {name for name in _own(model) if not name.startswith(base)}
    headless = bool(head) and head <= set(report["missing_keys"])
    check_used(model, report, place, ignored=head if headless else ())
    return headless


def check_used(model: Any, report: Mapping[str, Any], place: str, ignored: Collection[str] = ()) -> None:
    """Refuse weights that lack what a model runs; parts of other uses may lie beside it.

    Args:
        model: As in `lacks_head`.
        report: As in `lacks_head`.
        place: As in `lacks_head`.
        ignored: Parameters that may be missing.

    Raises:
        InputError: As in `lacks_head`.
    """
    _refuse_misfits(model, report, place, ignored)
    base = f"{model.base_model_prefix}."  # which weights may have that the model has not, and the reverse

    def part(name: str) -> str:
        return name.removeprefix(base).split(".")[0]

    parts = {part(name) for name, _ in model.named_modules()}  # an encoder may be left with no layer
    _refuse_unknown(place, [name for name in report["unexpected_keys"] if part(name) in parts])


def check_whole(model: Any, report: Mapping[str, Any], place: str) -> None:
    """Refuse weights that are not exactly those of the model; arguments and errors as in `lacks_head`."""
    _refuse_misfits(model, report, place, ())
    _refuse_unknown(place, report["unexpected_keys"])


def check_numbers(model: Any, place: str, file: Path | None) -> None:
    """Refuse weights that are not finite, or that are no floating-point numbers in the file.

    It takes one sum of each tensor: a hundredth of the time of loading them.

    Args:
        model: The model that was loaded.
        place: What complaints call the weights.
        file: The safetensors file that they came from, if it was one.

    Raises:
        InputError: A weight is so.
    """
    parameters = dict(model.named_parameters())
    if file is not None:
        with safe_open(file, framework="pt") as tensors:
            kinds = {name: tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
        for name, kind in kinds.items():
            weighs = any(one == name or one.endswith(f".{name}") for one in parameters)
            if "F" not in kind and weighs and not hasattr(model.config, "quantization_config"):
                raise InputError(f"{place}: {name} is of type {kind}, not float: restore the checkpoint")
    for name, weight in parameters.items():
        if not weight.is_floating_point() or torch.isfinite(weight.detach().sum()):
            continue
        if not torch.isfinite(weight).all():  # a sum alone may be too large for float16
            raise InputError(f"{place}: {name} holds numbers that are not finite: restore the checkpoint")


def _own(model: Any) -> set[str]:
    """The parameters that weights must hold: not those that are tied to others, nor buffers."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return names.difference(model.all_tied_weights_keys)


def _refuse_misfits(model: Any, report: Mapping[str, Any], place: str, ignored: Collection[str]) -> None:
    for name, found, expected in sorted(report["mismatched_keys"]):
        raise InputError(
            f"{place}: {name} has shape {list(found)}, but the configuration makes it {list(expected)}: "
            "restore the checkpoint"
        )
    missing = sorted(_own(model).intersection(report["missing_keys"]).difference(ignored))
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise InputError(
            f"{place}: lacks {missing[0]}{more} of the {type(model).__name__} that config.json describes: "
            "restore the checkpoint"
        )


def _refuse_unknown(place: str, names: Iterable[str]) -> None:
    unknown = sorted(name for name in names if not _UNUSED.search(name))
    if unknown:
        raise InputError(
            f"{place}: holds {unknown[0]}, which the model of config.json has no place for: "
            "restore the checkpoint"
        )
