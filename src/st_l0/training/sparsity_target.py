"""A sparsity that is asked for in place of its weight: λ_d is moved until what is measured comes to it."""

from __future__ import annotations

import random
from pathlib import Path
from statistics import fmean
from typing import Any

import scipy.sparse as sp
from transformers import TrainerCallback, TrainerControl, TrainerState

from st_l0.data import open_texts
from st_l0.evaluation.costs import Activity
from st_l0.losses import SparseRetrievalLoss
from st_l0.training.evaluation import FORWARDS
from st_l0.training.loss_settings import Loss, TargetSample
from st_l0.training.weight_controller import WeightController
from st_l0.utils.distributed import from_first, rank
from st_l0.utils.stock import without_autocast

_MISSED = 0.05  # share of the target that is worth a word
_NAMES = {  # of what is measured: in the log, and for people
    "target_flops": ("sample_flops", "FLOPS"),
    "target_active_dims": ("sample_active_dims", "active dims of a document"),
}


class SparsitySample:
    """Texts on which FLOPS or active dims are measured while a model trains.

    Args:
        settings: The section of the recipe.
        name: ``"target_flops"`` or ``"target_active_dims"``.

    Raises:
        InputError: A collection cannot be read, or lacks documents, or queries where FLOPS are measured.
    """

    def __init__(self, settings: TargetSample, name: str) -> None:
        self._documents = [_some(one, "corpus", settings.documents) for one in settings.collections]
        self._queries = [
            _some(one, "queries", settings.queries) if name == "target_flops" else []
            for one in settings.collections
        ]

    @property
    def documents(self) -> int:
        """Documents that are encoded each time."""
        return sum(map(len, self._documents))

    @property
    def queries(self) -> int:
        """Queries that are encoded each time."""
        return sum(map(len, self._queries))

    def measure(self, model: Any) -> float:
        """FLOPS or active dims of a document, as ``st-l0 evaluate`` reports them; mean over the collections.

        Args:
            model: A `st_l0.SparseEncoder`; its training mode is left as it was, and it is measured as it will
                be saved, without autocast.
        """
        training, found = model.training, []
        with without_autocast(model):
            for documents, queries in zip(self._documents, self._queries, strict=True):
                costs = _activity(model.encode_document(documents, convert_to_scipy=True))
                if queries:
                    shares = _activity(model.encode_query(queries, convert_to_scipy=True)).shares
                    found.append(float(shares @ costs.shares))
                else:
                    found.append(float(costs.dims.mean()))
        model.train(training)
        return fmean(found)


def in_words(settings: Loss, steps: int | None, documents_per_step: int) -> str:
    """What a recipe with a target does, in a training of so many steps, of so many documents each.

    Raises:
        InputError: As `SparsitySample`, for collections that are there.
    """
    assert settings.target is not None and settings.target_sample is not None
    (name, target), sample = settings.target, settings.target_sample
    controller = WeightController(target, settings.document_regularizer_weight)
    lowest, highest = controller.bounds
    text = (
        f"{_NAMES[name][1]} {target:g}: λ_d moves from {controller.start:g}, between {lowest:g} and "
        f"{highest:g}, every {sample.steps:,} steps"
    )
    if steps is not None:
        text += f", {sample.measurements(settings.ramp_steps, steps):,} times after the ramp"
    gone = [one for one in sample.collections if not Path(one).exists()]
    if gone:
        return f"{text}; what it costs is not known, {gone[0]} is not there"
    texts = SparsitySample(sample, name)
    share = texts.documents / (FORWARDS * documents_per_step * sample.steps)
    return (
        f"{text}; each measures {texts.documents:,} documents and {texts.queries:,} queries, "
        f"about {share:.1%} of the training's time"
    )


class SparsityTarget(TrainerCallback):
    """Measures a sample every few optimizer steps, and moves λ_d of a loss for the target.

    It begins at the end of the ramp, or before, where the sample is about to fall below the target: documents
    that a penalty has emptied have no gradient to come back by. The first process measures, and all move
    alike.

    Args:
        settings: The section of the recipe, with a target.
        model: The encoder.
        loss: Whose λ_d is moved.

    Raises:
        InputError: As `SparsitySample`.
    """

    def __init__(self, settings: Loss, model: Any, loss: SparseRetrievalLoss) -> None:
        assert settings.target is not None and settings.target_sample is not None
        self._name, self._target = settings.target
        self._sample = SparsitySample(settings.target_sample, self._name)
        self._steps, self._ramp = settings.target_sample.steps, settings.ramp_steps
        self._moving = False
        self._progress = 0.0  # since the last measurement, as of `WeightController`
        self._model, self._loss = model, loss
        self._controller = WeightController(self._target, settings.document_regularizer_weight)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, and move λ_d, where it is time for that."""
        share = _share_of_peak(kwargs["optimizer"], args.learning_rate)
        self._progress += share
        if state.global_step % self._steps:
            return
        controller, progress, self._progress = self._controller, self._progress, 0.0
        measured = from_first(self._sample.measure(self._model) if rank() == 0 else None)
        if not self._moving and state.global_step < self._ramp:
            if not controller.is_near(measured):
                controller.note(measured, progress)
                return
            controller.weight = self._loss.weights["document_regularizer_weight"]
        self._moving = True
        left = (state.max_steps - state.global_step) / self._steps
        moved = controller.update(measured, progress, share * self._steps, left)
        self._loss.set_document_regularizer_weight(moved)

    def log_entry(self) -> dict[str, float]:
        """What was measured last, for the log."""
        measured = self._controller.measured
        return {} if measured is None else {_NAMES[self._name][0]: round(measured, 4)}

    def outcome(self) -> tuple[str, str | None]:
        """What the trained model came to, and what is wrong with that, if it is; measured now.

        For the first process.
        """
        measured, what = self._sample.measure(self._model), _NAMES[self._name][1]
        controller, nearer = self._controller, f"{self._controller.settled:.2g}"
        text = (
            f"λ_d moved from {controller.start:g}, about {nearer} keeps the target: {what} {measured:.4g} of "
            f"unseen text, for a target of {self._target:g}"
        )
        if abs(measured / self._target - 1) <= _MISSED:
            return text, None
        bound = f" (λ_d ended at its bound, {controller.weight:.3g})" if controller.at_bound else ""
        return text, (
            f"{what} of loss.target_sample: {measured:.4g}, where loss.{self._name} is {self._target:g}"
            f"{bound}: train longer, or start from a nearer loss.document_regularizer_weight, about {nearer}"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "name": self._name,
            "moving": self._moving,
            "progress": self._progress,
            "controller": self._controller.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept; from its λ_d only, where its target or start is another one."""
        self._moving, self._progress = state["moving"], state["progress"]
        controller, kept = self._controller, state["controller"]
        if (state["name"], kept["target"], kept["start"]) == (self._name, self._target, controller.start):
            controller.load_state_dict(kept)
        else:
            controller.weight = kept["weight"]
        if self._moving:
            self._loss.set_document_regularizer_weight(controller.weight)


def _some(source: str, kind: Any, number: int) -> list[str]:
    """Texts of a collection, chosen at random and the same ones every time."""
    texts = open_texts(source, kind)
    names = list(texts.ids())
    chosen = random.Random(0).sample(names, min(number, len(names)))
    return texts.read(texts.rows(chosen))


def _share_of_peak(optimizer: Any, learning_rate: float) -> float:
    """The largest learning rate of all groups now, as a share of its highest."""
    group = max(optimizer.param_groups, key=lambda one: float(one["lr"]))
    peak = float(group.get("initial_lr", learning_rate))
    return float(group["lr"]) / peak if peak else 0.0


def _activity(vectors: sp.csr_matrix) -> Activity:
    activity = Activity()
    activity.add(vectors)
    return activity
