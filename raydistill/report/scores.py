"""Scores of several seeds and their paired differences, in the shapes that report.json holds.

The independent units of an interval are seeds where there are at least two, for the seeds of a run differ in all they do.
With a single seed they are prompts, and the interval says nothing about another seed. With one seed and one prompt it is null.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.intervals import Estimate, mean_estimate, paired_difference, prompt_means

Json = dict[str, Any]


def sampled_by_prompt(evaluation: Evaluation) -> list[float]:
    """Share of right samples, or mean reward, of each prompt."""
    return prompt_means(evaluation.sampled_BG)


def greedy_by_prompt(evaluation: Evaluation) -> list[float]:
    """1 or 0 for each prompt, or its reward."""
    return [float(right) for right in evaluation.greedy_B]


_BY_PROMPT: dict[str, Callable[[Evaluation], list[float]]] = {"sampled": sampled_by_prompt, "greedy": greedy_by_prompt}


def scored(report: Json) -> str:
    """What the scores of a report count."""
    return "mean reward" if report.get("graded") else "share of right answers"


def mean(values: Sequence[float]) -> float:
    """Raises ValueError without a value."""
    return mean_estimate(values).mean


def seed_means(evaluations: Sequence[Evaluation], kind: str = "sampled") -> list[float]:
    """The score of each evaluation; `kind` is sampled or greedy."""
    return [mean(_BY_PROMPT[kind](evaluation)) for evaluation in evaluations]


def score(evaluations: Sequence[Evaluation]) -> Json:
    """SCORE of the contract over one evaluation a seed: {"sampled": {"mean", "ci95", "n"}, "greedy": {...}}, n in completions."""
    completions = {
        "sampled": sum(len(row) for evaluation in evaluations for row in evaluation.sampled_BG),
        "greedy": sum(len(evaluation.greedy_B) for evaluation in evaluations),
    }
    return {kind: mean_and_interval(_estimate(evaluations, kind)) | {"n": n} for kind, n in completions.items()}


def difference(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Json:
    """First minus second, {"sampled": {"mean", "ci95"}, "greedy": {...}}, paired by seed, or by prompt with a single seed.

    A `second` of one evaluation stands beside every seed of `first`. Raises ValueError where seeds or prompts do not match.
    """
    partners = list(second) * len(first) if len(second) == 1 else list(second)
    if len(first) == 1:
        return prompt_difference(first, partners)
    pairs = {kind: paired_difference(seed_means(first, kind), seed_means(partners, kind)) for kind in _BY_PROMPT}
    return {kind: mean_and_interval(estimate) for kind, estimate in pairs.items()}


def prompt_difference(first: Sequence[Evaluation], second: Sequence[Evaluation]) -> Json:
    """The same, always paired by prompt: each prompt counts once, with its mean over seeds and samples.

    Raises ValueError unless all evaluations are of the same prompts in the same order.
    """
    if len({evaluation.prompt_ids for evaluation in (*first, *second)}) != 1:
        raise ValueError("evaluations of different prompts cannot be paired")
    pairs = {kind: paired_difference(_over_seeds(first, kind), _over_seeds(second, kind)) for kind in _BY_PROMPT}
    return {kind: mean_and_interval(estimate) for kind, estimate in pairs.items()}


def finite(value: float) -> float | None:
    """JSON has no NaN: what could not be measured is null."""
    return value if math.isfinite(value) else None


def mean_shares(shares: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean over seeds of shares by style; a style that a seed lacks has a share of 0 there."""
    return {style: mean([one.get(style, 0.0) for one in shares]) for style in sorted({s for one in shares for s in one})}


def _estimate(evaluations: Sequence[Evaluation], kind: str) -> Estimate:
    return mean_estimate(_BY_PROMPT[kind](evaluations[0]) if len(evaluations) == 1 else seed_means(evaluations, kind))


def mean_and_interval(estimate: Estimate) -> Json:
    """As reports hold it."""
    return {"mean": estimate.mean, "ci95": None if estimate.ci95 is None else list(estimate.ci95)}


def _over_seeds(evaluations: Sequence[Evaluation], kind: str) -> list[float]:
    """(B,): mean over evaluations of each prompt's score."""
    return [mean(column) for column in zip(*map(_BY_PROMPT[kind], evaluations), strict=True)]
