"""A weight moved until a quantity comes to its target, learning meanwhile how that follows it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

# What is expected of documents before any is measured, and its spread: they follow λ within some 30 optimizer
# steps at the full learning rate, by its power -.6.
_RATE, _POWER, _MOMENTUM = 1 / 30, 0.6, 0.3
_EXPECTED = (0.0, _RATE, _RATE * _POWER, _MOMENTUM)
_SPREAD = (2 * _RATE, _RATE, _RATE * _POWER, 0.4)
_SMALLEST_EFFECT = 0.1 * _RATE * _POWER
_DRIFT = 0.4 * _RATE  # of the first of them from one measurement to the next
_NOISE = 0.04 * math.sqrt(2)  # of the difference of two measurements
_HORIZON = 6  # measurements in which the target shall be reached
_LARGEST_MOVE = 1.0  # a factor of e
_LARGEST_ERROR = 3.0  # that counts: a factor of 20
_RANGE = 1000.0  # factor by which the weight may leave its start, up and down


class WeightController:
    """Moves a weight so that a quantity that falls with it comes to a target.

    With ``z = log(measured / target)``, ``v = log(weight / start)`` and the progress ``s`` of the training
    between two measurements, the quantity is taken to follow the weight late, with some momentum::

        z' - z = s' * (a - r * z - q * v) + m * (z - z of the measurement before) * s' / s

    All four are estimated from what is measured (a Kalman filter: recursive least squares that begins with an
    expectation, where ``a`` may drift). The weight becomes the one which, kept from now on, brings ``z`` to 0
    in six measurements, or in half of those that are left, as the learning rate falls towards the end. It is
    moved by a factor of e at most, and stays within a factor of 1,000 of where it started.

    Args:
        target: What the quantity shall be, above 0.
        start: The weight at the start, above 0.

    Attributes:
        start: Where the weight started.
        bounds: The smallest and the largest weight.
        weight: The weight now.
        measured: The last measurement; ``None`` before the first one.
    """

    def __init__(self, target: float, start: float) -> None:
        self._target = target
        self.bounds = start / _RANGE, start * _RANGE
        self.start = self.weight = start
        self.measured: float | None = None
        self._slope = 0.0  # of z, a unit of progress, at the last measurement
        self._moved = False
        self._tried = (start, start)  # the smallest and the largest weight that was
        self._estimate = np.array(_EXPECTED)
        self._covariance = np.diag(np.square(_SPREAD))

    def is_near(self, measured: float) -> bool:
        """Whether the next measurement may be below the target, if the quantity goes on as it did.

        Args:
            measured: What is measured now; `update` or `note` takes it afterwards.
        """
        before = measured if self.measured is None else self.measured
        return measured <= self._target or measured * measured <= self._target * before

    def note(self, measured: float, progress: float) -> None:
        """Take a measurement that moves nothing.

        Args:
            measured: 0 or more.
            progress: Optimizer steps since the one before, each as the share that its learning rate has of
                the highest one.
        """
        if self.measured is not None and progress > 0:
            self._slope = (self._error(measured) - self._error(self.measured)) / progress
        self.measured = measured

    def update(self, measured: float, progress: float, ahead: float, left: float) -> float:
        """Take a measurement and give the weight that follows from it.

        Args:
            measured: 0 or more.
            progress: As of `note`.
            ahead: The same until the next measurement, if the learning rate stays as it is.
            left: Measurements until the end of the training.
        """
        if self._moved and self.measured is not None and progress > 0:
            self._learn(self._error(measured) - self._error(self.measured), progress)
        self.note(measured, progress)
        self._tried = min(self._tried[0], self.weight), max(self._tried[1], self.weight)
        at = math.log(self.weight / self.start)
        if not self._moved:  # below the target already: it is expected to stay there
            self._estimate[0] = min(0.0, _RATE * (self._error(measured) + _POWER * at))
            self._moved = True
        steps = max(1, min(_HORIZON, int(left / 2)))
        unmoved = self._ahead(0.0, ahead, steps)
        effect = self._ahead(1.0, ahead, steps) - unmoved
        move = 0.0 if effect >= 0 else -unmoved / effect - at
        moved = self.weight * math.exp(min(max(move, -_LARGEST_MOVE), _LARGEST_MOVE))
        self.weight = min(max(moved, self.bounds[0]), self.bounds[1])
        return self.weight

    @property
    def at_bound(self) -> bool:
        """Whether the weight would have gone further."""
        return self.weight in self.bounds

    @property
    def settled(self) -> float:
        """The weight, among those that were tried, that is thought to keep the quantity at the target.

        The last one is not it: towards the end of a training the weight makes ever less of a difference, and
        moves ever more.
        """
        constant, _, effect, _ = self._estimate.tolist()
        ratio = constant / max(effect, _SMALLEST_EFFECT)
        lowest, highest = (math.log(weight / self.start) for weight in self._tried)
        return self.start * math.exp(min(max(ratio, lowest), highest))

    def state_dict(self) -> dict[str, Any]:
        """All that it has learned, as numbers and lists."""
        return {
            "target": self._target,
            "start": self.start,
            "weight": self.weight,
            "measured": self.measured,
            "slope": self._slope,
            "moved": self._moved,
            "tried": self._tried,
            "estimate": self._estimate.tolist(),
            "covariance": self._covariance.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict` of the same target and start."""
        self.weight, self.measured = state["weight"], state["measured"]
        self._slope, self._moved, self._tried = state["slope"], state["moved"], tuple(state["tried"])
        self._estimate, self._covariance = np.array(state["estimate"]), np.array(state["covariance"])

    def _learn(self, change: float, progress: float) -> None:
        """One step of the filter, from the change of z that the weight before has made."""
        assert self.measured is not None
        z, v = self._error(self.measured), math.log(self.weight / self.start)
        inputs = progress * np.array([1.0, -z, -v, self._slope])
        self._covariance[0, 0] += _DRIFT**2
        spread = self._covariance @ inputs
        gain = spread / (inputs @ spread + _NOISE**2)
        self._estimate = self._estimate + gain * (change - inputs @ self._estimate)
        self._covariance = self._covariance - np.outer(gain, spread)

    def _ahead(self, v: float, progress: float, steps: int) -> float:
        """What z becomes after so many measurements at one weight."""
        assert self.measured is not None
        constant, rate, effect, momentum = self._estimate.tolist()
        rate, effect = max(rate, 0.0), max(effect, _SMALLEST_EFFECT)
        momentum = min(max(momentum, 0.0), 0.95)
        z, change = self._error(self.measured), self._slope * progress
        for _ in range(steps):
            change = progress * (constant - rate * z - effect * v) + momentum * change
            z += change
        return z

    def _error(self, measured: float) -> float:
        error = math.log(measured / self._target) if measured else -math.inf
        return min(max(error, -_LARGEST_ERROR), _LARGEST_ERROR)
