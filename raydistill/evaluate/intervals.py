"""How far a measured figure can be trusted: Student's t intervals over independent units, which are seeds or prompts.

An interval needs two units at least; where there are fewer it is None, never a made-up width. Units that all agree give a
width of zero: with few units that says little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Interval = tuple[float, float]
"""Lower and upper bound."""


@dataclass(frozen=True)
class Estimate:
    """A mean over independent units."""

    mean: float
    ci95: Interval | None
    """None where there is only one unit."""
    n: int
    """Units, not values: values of one prompt or of one seed hang together."""

    def exp(self) -> Estimate:
        """Of what this is the logarithm's estimate of."""
        return Estimate(math.exp(self.mean), None if self.ci95 is None else (math.exp(self.ci95[0]), math.exp(self.ci95[1])), self.n)


@dataclass(frozen=True)
class Ratio:
    """How many times the control's score a calibrated student reaches."""

    ratio: float | None
    """Mean over seeds of the calibrated / mean over seeds of the controls; None where the controls' mean is 0."""
    ci95: Interval | None
    """From the seeds' own ratios, so that `ratio`, a quotient of means, need not lie in its middle. See `ratio_of_means`."""


def mean_estimate(values: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of independent units, such as one score a seed, with its t interval (mean +- t * std / sqrt(n), n - 1 degrees of freedom).

    Raises ValueError without a value.
    """
    n = len(values)
    if not n:
        raise ValueError("the mean of no values")
    mean = math.fsum(values) / n
    if n == 1:
        return Estimate(mean, None, 1)
    from scipy import stats

    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * math.sqrt(variance / n)
    return Estimate(mean, (mean - half, mean + half), n)


def prompt_means(values_BG: Sequence[Sequence[float]]) -> list[float]:
    """The mean of each prompt's samples.

    Raises ValueError unless every prompt has the same number of samples, at least one: the mean of these means is then the
    mean of all values.
    """
    sizes = {len(row) for row in values_BG}
    if len(sizes) != 1 or 0 in sizes:
        raise ValueError(f"every prompt needs the same number of samples, at least one; found {sorted(sizes)}")
    return [math.fsum(row) / len(row) for row in values_BG]


def paired_difference(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Estimate:
    """Mean of first - second over units that both share (the same prompts, or the same seeds), with its t interval.

    Raises ValueError if the lengths differ or are 0.
    """
    return mean_estimate([a - b for a, b in zip(first, second, strict=True)], confidence)


def ratio_of_means(calibrated: Sequence[float], controls: Sequence[float], confidence: float = 0.95) -> Ratio:
    """`ratio` and `ratio_ci95` of paired scores, one of each a seed.

    The interval is exp of the t interval over log(calibrated / control) of each seed. It is None with a single seed and
    where any score is 0, whose logarithm has no value: adding a small number instead would let that number set the width.
    Raises ValueError if the lengths differ or are 0, or a score is negative.
    """
    scores = (*calibrated, *controls)
    if any(score < 0 for score in scores):
        raise ValueError("a ratio of scores needs scores of 0 or more")
    pairs = list(zip(calibrated, controls, strict=True))
    above, below = mean_estimate(calibrated).mean, mean_estimate(controls).mean
    ratio = above / below if below else None
    if 0 in scores:
        return Ratio(ratio, None)
    logs = mean_estimate([math.log(a / b) for a, b in pairs], confidence)
    return Ratio(ratio, None if logs.ci95 is None else (math.exp(logs.ci95[0]), math.exp(logs.ci95[1])))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation, from -1 to 1; None where it is undefined: all of one side equal, or fewer than two pairs.

    Raises ValueError if the lengths differ.
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values cannot be paired with {len(y)}")
    if len(set(x)) < 2 or len(set(y)) < 2:
        return None
    from scipy import stats

    return float(stats.spearmanr(x, y).statistic)
