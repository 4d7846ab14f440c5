"""Ratios of sums over independent units, such as KL a token, where units (prompts) have different numbers of tokens.

Intervals are those of Taylor linearisation, the standard one for a ratio estimator under cluster sampling (Cochran 1977, ch. 6): a
t interval over each unit's first-order contribution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from raydistill.evaluate.intervals import Estimate, mean_estimate, paired_difference


def ratio_estimate(numerators: Sequence[float], denominators: Sequence[float]) -> Estimate:
    """sum(numerators) / sum(denominators) with its 95 % interval; a unit whose denominator is 0 has no part in it.

    Raises ValueError where no denominator is positive, one is negative, or the lengths differ.
    """
    return mean_estimate(_linearised(numerators, denominators))


def ratio_of_ratios(first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]]) -> Estimate:
    """The quotient of two such ratios over the same units, each given as (numerators, denominators); the interval is that of its logarithm.

    Raises ValueError unless all denominators and both ratios are positive.
    """
    logs = [_log_linearised(*part) for part in (first, second)]
    return mean_estimate([a - b for a, b in zip(*logs, strict=True)]).exp()


def difference_of_ratios(first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]]) -> Estimate:
    """The first of two such ratios over the same units, each given as (numerators, denominators), minus the second.

    A unit that is in one of them only counts there. Raises ValueError where a ratio has no positive denominator, one is negative, or the
    lengths differ.
    """
    used = [place for place, pair in enumerate(zip(first[1], second[1], strict=True)) if any(pair)]
    own, other = (_around([(numerators[at], denominators[at]) for at in used]) for numerators, denominators in (first, second))
    return paired_difference(own, other)


def _linearised(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """One value a unit with a positive denominator, whose mean is the ratio and whose spread is that of the ratio."""
    return _around([(a, b) for a, b in zip(numerators, denominators, strict=True) if b != 0])


def _around(units: Sequence[tuple[float, float]]) -> list[float]:
    """Likewise, for each unit: one whose denominator is 0 adds nothing to the spread."""
    if any(denominator < 0 for _, denominator in units):
        raise ValueError("a denominator is negative")
    mean = math.fsum(b for _, b in units) / max(1, len(units))
    if not mean:
        raise ValueError("a ratio without a positive denominator")
    ratio = math.fsum(a for a, _ in units) / len(units) / mean
    return [ratio + (a - ratio * b) / mean for a, b in units]


def _log_linearised(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    if not all(denominator > 0 for denominator in denominators):
        raise ValueError("a ratio of ratios is paired by unit: every denominator must be positive")
    values = _linearised(numerators, denominators)
    ratio = math.fsum(values) / len(values)
    if ratio <= 0:
        raise ValueError("a ratio of ratios needs positive ratios")
    return [math.log(ratio) + value / ratio - 1 for value in values]
