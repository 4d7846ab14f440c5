"""A student after distillation beside the one before it: differences of score and symptoms, paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.diagnose.calibration_error import Answer, calibration_error_difference, confidence_when_wrong_difference
from raydistill.diagnose.degradation import repeated_share
from raydistill.diagnose.findings import Json, figure, not_measured
from raydistill.diagnose.sampled import Sampled
from raydistill.evaluate.intervals import Estimate, paired_difference, prompt_means


@dataclass(frozen=True)
class Student:
    """What a student wrote, and what was found of it."""

    sampled: Sampled
    answers_BG: list[list[Answer]] | None
    """None where it is not known which tokens write an answer."""
    found: Json
    """`score`, `verifier_failures`, `traps` and `symptoms`."""


def differences(before: Student, after: Student, unit: str = "share right") -> Json:
    """After minus before; each is 0 where distillation changed nothing. n counts prompts; `unit` is the score's."""
    both = (after.sampled, before.sampled)
    return _of_confidence(before.answers_BG, after.answers_BG) | {
        "score": figure(_by_prompt(*([[float(one) for one in row] for row in s.right_BG] for s in both)), unit, 0.0, (-1, 1)),
        "repeated": figure(_by_prompt(*(_repeated(s) for s in both)), "share of 4-grams", 0.0, (-1, 1)),
    }


def _of_confidence(before_BG: list[list[Answer]] | None, after_BG: list[list[Answer]] | None) -> Json:
    if before_BG is None or after_BG is None:
        return dict.fromkeys(("calibration_error", "confidence_when_wrong"), not_measured("answers are not told from the rest"))
    return {
        "calibration_error": _figure(calibration_error_difference(after_BG, before_BG), "a student has no answer"),
        "confidence_when_wrong": _figure(confidence_when_wrong_difference(after_BG, before_BG), "a student has no wrong answer"),
    }


def _figure(estimate: Estimate | None, why: str) -> Json:
    return not_measured(why) if estimate is None else figure(estimate, "probability", 0.0, (-1, 1))


def _by_prompt(after_BG: Sequence[Sequence[float]], before_BG: Sequence[Sequence[float]]) -> Estimate:
    return paired_difference(prompt_means(after_BG), prompt_means(before_BG))


def _repeated(sampled: Sampled) -> list[list[float]]:
    return [[repeated_share(one.text) for one in row] for row in sampled.completions_BG]
