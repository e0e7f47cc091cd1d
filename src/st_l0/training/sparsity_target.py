"""A sparsity that is asked for in place of its weight: λ_d is moved until what is measured comes to it."""

from __future__ import annotations

import math
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
from st_l0.utils.distributed import from_first, rank
from st_l0.utils.stock import without_autocast

# Of the relative error of a measurement, and of its change since the one before; in a simulation of documents
# that follow λ after 10 to 100 steps, by powers from .3 to 1.2, some 40 measurements then suffice.
_BY_ERROR, _BY_CHANGE = 0.6, 1.5
_LARGEST_ERROR = 1.0  # that counts: a factor of e
_RANGE = 1000.0  # factor by which λ_d may leave its start, up and down
_MISSED = 0.05  # share of the target that is worth a word
_NAMES = {  # of what is measured: in the log, and for people
    "target_flops": ("sample_flops", "FLOPS"),
    "target_active_dims": ("sample_active_dims", "active dims of a document"),
}


class WeightController:
    """Moves a weight so that a quantity that falls with it comes to a target.

    In logarithms, as a proportional-integral controller, with ``e = log(measured / target)`` held between -1
    and 1::

        log weight += 0.6 * e + 1.5 * (e - e of the measurement before)

    so that an error that grows is answered before it is large, and one that shrinks fast enough is left to
    itself. The weight stays within a factor of 1,000 of where it started.

    Args:
        target: What the quantity shall be, above 0.
        start: The weight at the start, above 0.

    Attributes:
        start: Where the weight started.
        weight: The weight now.
        measured: The last measurement; ``None`` before the first one.
    """

    def __init__(self, target: float, start: float) -> None:
        self._target = target
        self._bounds = start / _RANGE, start * _RANGE
        self.start = self.weight = start
        self.measured: float | None = None

    def is_near(self, measured: float) -> bool:
        """Whether the next measurement may be below the target, if the quantity goes on as it did.

        Args:
            measured: What is measured now; `update` or `note` takes it afterwards.
        """
        before = measured if self.measured is None else self.measured
        return measured <= self._target or measured * measured <= self._target * before

    def note(self, measured: float) -> None:
        """Take a measurement that moves nothing."""
        self.measured = measured

    def update(self, measured: float) -> float:
        """Take a measurement, 0 or more, and give the weight that follows from it."""
        error = self._error(measured)
        change = 0.0 if self.measured is None else error - self._error(self.measured)
        self.measured = measured
        moved = self.weight * math.exp(_BY_ERROR * error + _BY_CHANGE * change)
        self.weight = min(max(moved, self._bounds[0]), self._bounds[1])
        return self.weight

    @property
    def at_bound(self) -> bool:
        """Whether the weight would have gone further."""
        return self.weight in self._bounds

    def _error(self, measured: float) -> float:
        error = math.log(measured / self._target) if measured else -math.inf
        return min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)


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
    start = settings.document_regularizer_weight
    text = (
        f"{_NAMES[name][1]} {target:g}: λ_d moves from {start:g}, between {start / _RANGE:g} and "
        f"{start * _RANGE:g}, every {sample.steps:,} steps"
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
        self._model, self._loss = model, loss
        self._controller = WeightController(self._target, settings.document_regularizer_weight)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Measure, and move λ_d, where it is time for that."""
        if state.global_step % self._steps:
            return
        controller = self._controller
        measured = from_first(self._sample.measure(self._model) if rank() == 0 else None)
        if not self._moving and state.global_step < self._ramp:
            if not controller.is_near(measured):
                controller.note(measured)
                return
            controller.weight = self._loss.weights["document_regularizer_weight"]
        self._moving = True
        self._loss.set_document_regularizer_weight(controller.update(measured))

    def log_entry(self) -> dict[str, float]:
        """What was measured last, for the log."""
        measured = self._controller.measured
        return {} if measured is None else {_NAMES[self._name][0]: round(measured, 4)}

    def outcome(self) -> tuple[str, str | None]:
        """What the trained model came to, and what is wrong with that, if it is; measured now.

        For the first process.
        """
        measured, what = self._sample.measure(self._model), _NAMES[self._name][1]
        text = f"λ_d moved from {self._controller.start:g} to {self._controller.weight:.3g}: {what} "
        text += f"{measured:.4g} of unseen text, for a target of {self._target:g}"
        if abs(measured / self._target - 1) <= _MISSED:
            return text, None
        bound = "its bound, " if self._controller.at_bound else ""
        return text, (
            f"{what} of loss.target_sample: {measured:.4g}, where loss.{self._name} is {self._target:g} (λ_d "
            f"ended at {bound}{self._controller.weight:.3g}): train longer, or start from a nearer "
            "loss.document_regularizer_weight"
        )

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        controller = self._controller
        return {
            "name": self._name,
            "moving": self._moving,
            "weight": controller.weight,
            "measured": controller.measured,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint kept; from its λ_d only, where its target is of another kind."""
        self._controller.weight = state["weight"]
        self._controller.measured = state["measured"] if state["name"] == self._name else None
        self._moving = state["moving"]
        if self._moving:
            self._loss.set_document_regularizer_weight(state["weight"])


def _some(source: str, kind: Any, number: int) -> list[str]:
    """Texts of a collection, chosen at random and the same ones every time."""
    texts = open_texts(source, kind)
    names = list(texts.ids())
    chosen = random.Random(0).sample(names, min(number, len(names)))
    return texts.read(texts.rows(chosen))


def _activity(vectors: sp.csr_matrix) -> Activity:
    activity = Activity()
    activity.add(vectors)
    return activity
