"""Off-policy instability as training would feel it: how much the length of the gradient varies from micro-batch to micro-batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from raydistill.evaluate.intervals import Estimate, mean_estimate


@dataclass(frozen=True)
class Spread:
    """Of the gradient norms of several micro-batches."""

    mean: Estimate
    variance: float
    """With n - 1."""
    variation: float | None
    """Standard deviation / mean, the coefficient of variation; None where the mean is 0."""


def spread(norms: Sequence[float]) -> Spread:
    """Raises StatisticsError for fewer than two norms."""
    mean, found = mean_estimate(norms), variance(norms)
    return Spread(mean, found, math.sqrt(found) / mean.mean if mean.mean else None)


def variance_ratio(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """variance(first) / variance(second) over paired units, such as micro-batches of the same prompts.

    The interval is that of the logarithm, by the jackknife over units (Miller 1968): a t interval over its pseudo-values. The F interval
    would take norms to be normal and both sides independent, which they are not. None where it is undefined: fewer than three units,
    or a side that, with a unit left out, does not vary. Raises ValueError if the lengths differ.
    """
    pairs = list(zip(first, second, strict=True))
    n = len(pairs)
    left_out = [pairs[:place] + pairs[place + 1 :] for place in range(n)]
    if n < 3 or any(variance(side) == 0 for part in left_out for side in zip(*part, strict=True)):
        return None
    log = _log_ratio(pairs)
    pseudo = mean_estimate([n * log - (n - 1) * _log_ratio(part) for part in left_out])
    assert pseudo.ci95 is not None  # noqa: S101 - n is at least 3
    half = (pseudo.ci95[1] - pseudo.ci95[0]) / 2
    return Estimate(math.exp(log), (math.exp(log - half), math.exp(log + half)), n)


def _log_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    first, second = zip(*pairs, strict=True)
    return math.log(variance(first)) - math.log(variance(second))
