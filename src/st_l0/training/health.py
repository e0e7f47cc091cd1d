"""Whether a training is sound: what ends it at once, and a verdict on what it has learned."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from st_l0.errors import InputError
from st_l0.training.checkpoints import last_complete_checkpoint

_STILL = 10  # optimizer steps without any gradient, after which a training of empty documents is given up
_EMPTY = 0.01  # share of empty documents that is worth a word
_FEW, _FALL = 10, 0.2  # fewer active dims than this, and than this share of the first line's: a collapse
_MOST = 0.5  # share of the vocabulary
_PULL = 10  # times the ranking loss's gradient
_MOVED, _LINES = 0.01, 10  # change of a ranking loss, and the lines it takes to say that there was none


class HealthWatch:
    """Ends a training at the first loss, gradient or weight that is not finite, before a weight follows it.

    The norm of the gradients is the trainer's own; reading it and the loss is one wait for the device in an
    optimizer step, where stock's filter, which is off, waits at every loss.

    Args:
        checkpoints: Folder whose newest checkpoint the message names.
        ignore: Whether a training of which nothing moves any more goes on.
    """

    def __init__(self, checkpoints: str | Path, *, ignore: bool = False) -> None:
        self._checkpoints = Path(checkpoints)
        self._ignore = ignore
        self._terms: list[Mapping[str, Tensor]] = []
        self._still = 0
        self.empty = False  # whether all documents of the last line of the log were

    def observe_terms(self, terms: Mapping[str, Tensor]) -> None:
        """Take note of the loss terms of a batch; nothing waits for them here."""
        self._terms.append({name: value.detach() for name, value in terms.items()})

    def check_step(self, step: int, norm: Tensor | float, model: nn.Module, *, scaled: bool = False) -> None:
        """Look at the losses and gradients of a step, before the optimizer does.

        Args:
            step: Number of the step, from 1.
            norm: Norm of all gradients.
            model: Whose gradients and weights they are.
            scaled: Whether a scaler (fp16) skips steps of infinite gradients, so that they are no fault.

        Raises:
            InputError: Something is not finite, or nothing has moved for some steps.
        """
        batches, self._terms = self._terms, []
        values = torch.stack(
            [value.float() for terms in batches for value in terms.values()] or [torch.zeros(())]
        )
        norm = torch.as_tensor(norm, device=values.device, dtype=torch.float32)
        finite, length = torch.stack([values.isfinite().all().float(), norm]).tolist()
        if finite and (scaled or length - length == 0):
            self._check_motion(step, length)
            return
        weight = first_non_finite(model)
        found: str | None = None if weight is None else f"weight {weight}"
        for terms in batches:
            for name, value in terms.items():
                found = found or (None if value.isfinite().all() else f"{name} ({value.item()})")
        gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
        for name, gradient in gradients.items():
            if found is None and gradient is not None and not gradient.isfinite().all():
                found = f"gradient of {name}"
        raise InputError(self._stopped(step, found or "norm of the gradients"))

    def _check_motion(self, step: int, length: float) -> None:
        self._still = self._still + 1 if length == 0 else 0
        if self._still >= _STILL and self.empty and not self._ignore:
            raise InputError(
                f"step {step}: every document is empty and the last {self._still} steps had no gradient, so "
                "that nothing trains any more: lower loss.document_regularizer_weight or "
                "training.learning_rate, or raise loss.ramp_steps (ignore_health: true goes on)"
            )

    def check_weights(self, step: int, model: nn.Module) -> None:
        """Refuse weights that are not finite; before they are saved.

        Raises:
            InputError: One is not.
        """
        weight = first_non_finite(model)
        if weight is not None:
            raise InputError(self._stopped(step, f"weight {weight}"))

    def _stopped(self, step: int, what: str) -> str:
        try:
            newest = last_complete_checkpoint(self._checkpoints)
        except InputError:
            newest = None
        kept = "no checkpoint was written" if newest is None else f"{newest} is the newest good checkpoint"
        return (
            f"step {step}: the {what} is not finite, the training diverged and was stopped; {kept}: lower "
            "training.learning_rate, set training.max_grad_norm, or leave training.fp16 out"
        )


def first_non_finite(model: nn.Module) -> str | None:
    """Name of the first parameter of a model that holds NaN or infinity."""
    parameters = list(model.named_parameters())
    if not parameters:
        return None
    # One wait for the device in all.
    finite = torch.stack(
        [parameter.isfinite().all().to(parameters[0][1].device) for _, parameter in parameters]
    )
    places = (~finite).nonzero()
    return parameters[int(places[0])][0] if len(places) else None


def verdict(log: Sequence[Mapping[str, Any]], vocabulary_size: int) -> list[str]:
    """What a training log says is wrong with what was trained, one sentence each.

    Args:
        log: ``log_history`` of the trainer. The end is judged by the last fifth of its lines.
        vocabulary_size: Of the model.

    Returns:
        Nothing where all is well.
    """
    lines = [line for line in log if "document_active_dims" in line]
    if not lines:
        return []
    fifth = max(1, len(lines) // 5)
    first, last = lines[:fifth], lines[-fifth:]
    found = []
    empty, dims = _mean(last, "empty_documents"), _mean(last, "document_active_dims")
    start = _mean(first, "document_active_dims")
    if empty > _EMPTY:
        found.append(f"{empty:.0%} of the documents are empty: lower loss.document_regularizer_weight")
    if dims < min(_FEW, _FALL * start):
        found.append(
            f"documents have {dims:.3g} active dims, of {start:.4g} at the start: lower "
            "loss.document_regularizer_weight"
        )
    if dims > _MOST * vocabulary_size:
        found.append(
            f"documents have {dims:,.0f} active dims of {vocabulary_size:,}: raise "
            "loss.document_regularizer_weight, or train longer"
        )
    everywhere = min(line.get("tokens_in_every_document", 0) for line in last)
    if everywhere:
        found.append(f"{everywhere} tokens are in every document: they cost time and tell nothing apart")
    pulls = [line["penalty_to_ranking"] for line in last if "penalty_to_ranking" in line]
    if pulls and statistics.median(pulls) > _PULL:
        found.append(
            f"the penalty pulls {statistics.median(pulls):,.0f} times as hard as the ranking loss: lower "
            "loss.document_regularizer_weight"
        )
    return found + _unmoved(lines, first, last)


def _unmoved(lines: Sequence[Mapping[str, Any]], *ends: Sequence[Mapping[str, Any]]) -> list[str]:
    found = []
    names = [name for name in lines[-1] if name.endswith("_loss") and not name.endswith("regularizer_loss")]
    for name in names:
        if not any(line.get(name) for line in lines):
            found.append(f"{name} was 0 in every line of the log: there was nothing to rank")
            continue
        start, end = (_mean(part, name) for part in ends)
        if len(lines) >= _LINES and abs(end - start) <= _MOVED * abs(start):
            found.append(f"{name} has not moved ({start:.4g} at the start, {end:.4g} at the end)")
    return found


def _mean(lines: Sequence[Mapping[str, Any]], name: str) -> float:
    return statistics.fmean(line.get(name, 0.0) for line in lines)
