"""Overconfident hallucination: whether a model that is sure of its answer is right.

Axes: B, prompts; G, answers of a prompt; N, all answers.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np

from raydistill.evaluate.intervals import Estimate
from raydistill.evaluate.ratios import difference_of_ratios, ratio_estimate

BINS = 10
_DRAWS, _OUTCOMES = 200, 1_000_000
"""Draws of all answers for the noise floor; more where answers are few, until so many outcomes were drawn."""
_BLOCK = 2**20
"""Outcomes held at once."""


@dataclass(frozen=True)
class Answer:
    """What a model said, how sure it was, and whether it was right."""

    confidence: float
    """Probability of the answer's tokens given the prompt and the trace before them."""
    right: bool
    text: str = ""
    """What was answered: answers of a prompt with one text are right or wrong together."""


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence."""

    low: float
    high: float
    n: int
    confidence: float
    """Mean."""
    accuracy: float
    """Share of right ones."""


def reliability(answers_N: Sequence[Answer], bins: int = BINS) -> list[Bin]:
    """The bins of equal width, the last one closed at 1, that hold an answer (Guo et al. 2017)."""
    held: list[list[Answer]] = [[] for _ in range(bins)]
    for answer in answers_N:
        held[_bin(answer, bins)].append(answer)
    return [
        Bin(place / bins, (place + 1) / bins, len(one), sum(a.confidence for a in one) / len(one), sum(a.right for a in one) / len(one))
        for place, one in enumerate(held)
        if one
    ]


def calibration_error(answers_BG: Sequence[Sequence[Answer]], bins: int = BINS) -> Estimate:
    """Expected calibration error: the mean over bins of |confidence - accuracy|, weighted by their answers; from 0 to 1.

    The interval clusters by prompt and takes it as given on which side of its accuracy each bin's confidence lies. Noise alone keeps the
    error above 0: see `noise_floor`. Raises ValueError without an answer.
    """
    return ratio_estimate(*_excess(answers_BG, bins))


def calibration_error_difference(
    first_BG: Sequence[Sequence[Answer]], second_BG: Sequence[Sequence[Answer]], bins: int = BINS
) -> Estimate | None:
    """That of `first_BG` minus that of `second_BG`, paired by prompt; None where either has no answer."""
    if not any(first_BG) or not any(second_BG):
        return None
    return difference_of_ratios(_excess(first_BG, bins), _excess(second_BG, bins))


def _excess(answers_BG: Sequence[Sequence[Answer]], bins: int) -> tuple[list[float], list[int]]:
    """By prompt, what its answers add to the sum of |confidence - accuracy| over bins, and how many they are."""
    bins_of = reliability([answer for row in answers_BG for answer in row], bins)
    signs = {round(one.low * bins): math.copysign(1, one.confidence - one.accuracy) for one in bins_of}
    excess = [sum(signs[_bin(answer, bins)] * (answer.confidence - answer.right) for answer in row) for row in answers_BG]
    return excess, [len(row) for row in answers_BG]


def noise_floor(answers_BG: Sequence[Sequence[Answer]], bins: int = BINS) -> float:
    """What the error would come to on average if every answer were right with just the probability of its confidence, by simulation.

    Answers of a prompt with one text share a uniform number, each right where it is below its confidence; all others are independent.
    The same answers give the same floor. Raises ValueError without an answer.
    """
    flat = [answer for row in answers_BG for answer in row]
    if not flat:
        raise ValueError("no answer has no noise floor")
    sure_N = np.array([answer.confidence for answer in flat])
    place_N = np.array([_bin(answer, bins) for answer in flat])
    held_NK = (place_N[:, None] == np.unique(place_N)).astype(float)
    group_N, groups = _groups(answers_BG)
    draws, step = max(_DRAWS, _OUTCOMES // len(flat)), max(1, _BLOCK // len(flat))
    rng = np.random.default_rng(0)
    total = 0.0
    for start in range(0, draws, step):
        uniform_DN = rng.random((min(step, draws - start), groups))[:, group_N]
        total += float(np.abs((sure_N - (uniform_DN < sure_N)) @ held_NK).sum())
    return total / draws / len(flat)


def _groups(answers_BG: Sequence[Sequence[Answer]]) -> tuple[np.ndarray, int]:
    """For each answer the number of those of its prompt and text, (N,), and how many such groups there are."""
    numbers: defaultdict[tuple[int, str], int] = defaultdict(count().__next__)
    group_N = np.array([numbers[place, answer.text] for place, row in enumerate(answers_BG) for answer in row])
    return group_N, len(numbers)


def overconfidence(answers_BG: Sequence[Sequence[Answer]]) -> Estimate:
    """Mean confidence minus share right, from -1 to 1, clustered by prompt: above 0 a model is surer than it may be.

    Unlike the error it has a sign, and is 0 also where too sure and too unsure answers balance. Raises ValueError without an answer.
    """
    return ratio_estimate([sum(a.confidence - a.right for a in row) for row in answers_BG], [len(row) for row in answers_BG])


def confidence_when_wrong(answers_BG: Sequence[Sequence[Answer]]) -> Estimate | None:
    """Mean confidence of the wrong answers, clustered by prompt; None where all are right."""
    sums, counts = _wrong(answers_BG)
    return ratio_estimate(sums, counts) if any(counts) else None


def calibrated_when_wrong(answers_BG: Sequence[Sequence[Answer]]) -> float | None:
    """What it would come to if every answer were right with just the probability of its confidence c: sum c (1 - c) / sum (1 - c).

    That is over many draws of right and wrong taken together. None where all confidences are 1, as no answer would be wrong.
    """
    wrong = [1 - answer.confidence for row in answers_BG for answer in row]
    return math.fsum((1 - one) * one for one in wrong) / total if (total := math.fsum(wrong)) > 0 else None


def confidence_when_wrong_difference(first_BG: Sequence[Sequence[Answer]], second_BG: Sequence[Sequence[Answer]]) -> Estimate | None:
    """That of `first_BG` minus that of `second_BG`, paired by prompt; None where either has no wrong answer."""
    first, second = _wrong(first_BG), _wrong(second_BG)
    return difference_of_ratios(first, second) if any(first[1]) and any(second[1]) else None


def _wrong(answers_BG: Sequence[Sequence[Answer]]) -> tuple[list[float], list[int]]:
    """By prompt, the sum of the confidences in wrong answers, and how many they are."""
    wrong_BG = [[answer.confidence for answer in row if not answer.right] for row in answers_BG]
    return [sum(row) for row in wrong_BG], [len(row) for row in wrong_BG]


def _bin(answer: Answer, bins: int) -> int:
    return min(bins - 1, int(answer.confidence * bins))
