"""What the trainer makes of its arguments long after it was given them, made once before anything is read."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.checkpoint import checkpoint
from transformers import Trainer
from transformers.optimization import get_scheduler

from st_l0.errors import InputError
from st_l0.utils.stock import INTEGRATION_TO_CALLBACK, get_available_reporting_integrations

# Where the integration has another name than what is to be installed.
_PACKAGES = {"azure_ml": "azureml-sdk"}

# Steps of the schedule that is looked at where the recipe gives epochs.
_SOME_STEPS = 1000


def rehearse(arguments: Any) -> None:
    """Make the optimizer, the schedule and the rest that arguments name, on a tiny layer.

    Args:
        arguments: A `SparseEncoderTrainingArguments`.

    Raises:
        Exception: What the library that cannot make it raises, of any type.
    """
    if arguments.fp16 and arguments.device.type == "cpu":
        raise ValueError("needs a GPU; leave it out, or take bf16")
    if arguments.fsdp and arguments.world_size == 1:
        raise ValueError("needs several processes: start them with accelerate launch or torchrun")
    _check_reports(arguments)
    _check_hub(arguments)
    layer = torch.nn.Linear(2, 2)
    optimizer = _optimizer(arguments, layer)
    _check_schedule(arguments, optimizer or torch.optim.SGD(layer.parameters(), lr=arguments.learning_rate))
    if arguments.torch_compile:
        from accelerate.utils import TorchDynamoPlugin

        TorchDynamoPlugin(backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode)
        torch.compile(layer, backend=arguments.torch_compile_backend, mode=arguments.torch_compile_mode)
    if arguments.gradient_checkpointing:  # also what `activation_checkpointing` sets
        options = dict(arguments.gradient_checkpointing_kwargs or {})
        own = ("every_n_layers", "offload")  # which the model takes itself
        options = {name: value for name, value in options.items() if name not in own}
        checkpoint(layer, torch.ones(1, 2, requires_grad=True), **{"use_reentrant": True, **options})
    for pattern, rate in arguments.learning_rate_mapping.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"{pattern!r} is no pattern ({error})") from None
        if rate < 0:
            raise ValueError(f"gives {pattern!r} {rate}; give at least 0")


def _check_reports(arguments: Any) -> None:
    for name in arguments.report_to:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(INTEGRATION_TO_CALLBACK)
            raise ValueError(f"{name!r} is not known; give none, all, or some of {known}")
        if name not in get_available_reporting_integrations():
            package = _PACKAGES.get(name, name)
            raise InputError(f"{name} needs a package that is not installed: pip install {package}")


def _check_hub(arguments: Any) -> None:
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    if arguments.hub_model_id is not None:
        validate_repo_id(arguments.hub_model_id)
    if arguments.push_to_hub:
        if constants.HF_HUB_OFFLINE:
            raise ValueError("needs the Hub, but HF_HUB_OFFLINE is set")
        if not (arguments.hub_token or get_token()):
            raise ValueError("needs an access token of the Hub: hf auth login, or set HF_TOKEN")


def _optimizer(arguments: Any, layer: Any) -> torch.optim.Optimizer | None:
    """The optimizer, on a layer; ``None`` where it wants the layers of the model that it names."""
    given = [] if not arguments.optim_args else arguments.optim_args.replace(" ", "").split(",")
    if not all(re.fullmatch("[^=]+=[^=]+", one) for one in given):
        raise ValueError(f"is {arguments.optim_args!r}; write name=value, several of them with commas")
    try:
        kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments, layer)
    except ValueError:
        if arguments.optim_target_modules is None:
            raise
        return None
    if arguments.optim_target_modules is not None and "params" not in options:
        raise ValueError(f"has no effect on {arguments.optim.value}")
    for number, one in enumerate(given):
        others = [other for position, other in enumerate(given) if position != number]
        if _options(arguments, ",".join(others), layer) == options:
            raise ValueError(f"{one} changes nothing of {arguments.optim.value}")
    if not isinstance(kind, type) or {"params", "model", "optimizer_dict"} & options.keys():
        return None
    return kind(layer.parameters(), **options)  # type: ignore[no-any-return]


def _options(arguments: Any, optim_args: str, layer: Any) -> dict[str, Any]:
    former, arguments.optim_args = arguments.optim_args, optim_args
    try:
        return dict(Trainer.get_optimizer_cls_and_kwargs(arguments, layer)[1])
    finally:
        arguments.optim_args = former


def _check_schedule(arguments: Any, optimizer: torch.optim.Optimizer) -> None:
    steps = arguments.max_steps if arguments.max_steps > 0 else _SOME_STEPS
    schedule = get_scheduler(
        arguments.lr_scheduler_type,
        optimizer,
        num_warmup_steps=arguments.get_warmup_steps(steps),
        num_training_steps=steps,
        scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
    )
    for _ in range(3):
        if not all(isinstance(rate, float) and math.isfinite(rate) for rate in schedule.get_last_lr()):
            rate = schedule.get_last_lr()[0]
            raise ValueError(f"{arguments.lr_scheduler_type.value} gives the learning rate {rate}")
        optimizer.step()
        schedule.step(*([0.0] if isinstance(schedule, ReduceLROnPlateau) else []))
