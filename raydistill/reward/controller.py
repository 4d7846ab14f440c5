"""The bounded controller that moves eta until students are where they were asked to be. No I/O: it is what it was told."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raydistill.config.target import TargetConfig

LEAST_RATIO = 0.01
"""A measured ratio below this counts as this: a student that is never right has no logarithm."""
_CAREFUL, _BOLDER = 0.7, 1.2
"""By what an overshoot, and an error that lasts, change the gain."""


class Controller:
    """eta = gain * (error as it will be at the next measurement) + integral of the errors, within +-max_eta.

    The error is log(asked / measured); at the start the ratio is 1, for the teacher is the original. How far a teacher has
    moved is by itself an integral of eta, and an optimiser with momentum moves it on for a while: so the proportional part
    leads, on the error extrapolated from the last two, and the small integral is there for plants that do come to rest, such
    as a teacher that its KL anchor holds back. The integral grows no further than takes eta to its bound, and is halved where
    the error changes its sign. A plant that answers faster than was thought would swing about the target for ever: an
    overshoot by more than half the error before it lowers the gain, which recovers while errors stay as they are.
    """

    def __init__(self, config: TargetConfig, start: float = 0.0) -> None:
        """`start` is what the integral begins with (`knob.eta`)."""
        self._config = config
        self._integral, self._caution = start, 1.0
        self._error = math.log(config.student_ratio)
        self._best, self._waited = math.inf, 0
        self.eta = self._bounded(config.gain * self._error + start)
        """To be in force until the next measurement."""

    def take(self, ratio: float) -> None:
        """Move eta by a measured ratio."""
        before, self._error = self._error, math.log(self._config.student_ratio / max(ratio, LEAST_RATIO))
        self._count(abs(self._error))
        if self._error * before < 0:
            self._integral /= 2
        self._caution = self._cautious(before)
        proportional = self._caution * self._config.gain * (2 * self._error - before)
        grown = self._bounded(self._integral + self._caution * self._config.integral * self._error)
        room = self._bounded(proportional + grown) - proportional  # with which eta is just at its bound, or where it wants to be
        self._integral = sorted((self._integral, grown, room))[1]
        self.eta = self._bounded(proportional + self._integral)

    @property
    def stuck(self) -> bool:
        """Whether eta has been at its bound towards the target for `patience` measurements, and the best one lies before them."""
        return self._waited >= self._config.patience

    def _cautious(self, before: float) -> float:
        """The share of the gain to use from now on."""
        if self._error * before < 0 and abs(self._error) > abs(before) / 2:
            return self._caution * _CAREFUL
        lasting = self._error * before > 0 and abs(self._error) > 0.8 * abs(before)
        return min(1.0, self._caution * _BOLDER) if lasting else self._caution

    def _count(self, distance: float) -> None:
        """`eta` is still what it was up to this measurement."""
        at_bound = abs(self.eta) >= self._config.max_eta and self.eta * self._error > 0
        self._waited = self._waited + 1 if at_bound and distance >= self._best else 0
        self._best = min(self._best, distance)

    def _bounded(self, eta: float) -> float:
        return max(-self._config.max_eta, min(self._config.max_eta, eta))


def within(config: TargetConfig, ratio: float) -> bool:
    """Whether a ratio is as near to the one asked for as it was to be."""
    return abs(ratio - config.student_ratio) <= config.tolerance


def nearest(config: TargetConfig, ratios: Iterable[float]) -> int:
    """Place of the ratio nearest to the one asked for: one within the tolerance, if there is any, then as a factor; the first of several.

    Raises ValueError without a ratio.
    """
    asked = config.student_ratio
    distances = [(not within(config, ratio), abs(math.log(max(ratio, LEAST_RATIO) / asked))) for ratio in ratios]
    return distances.index(min(distances))
