"""Multiple choice by likelihood: the option that a model finds likeliest after the question is its answer.

`acc` goes by the sum of an option's log-probabilities, `acc_norm` by log-probability a byte, as options of different lengths would
have it; both as lm-evaluation-harness names them. It divides by characters, which on ASCII is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raydistill.evaluate.intervals import Estimate, mean_estimate
from raydistill.scoring.score import SequenceScore
from raydistill.tasks.letters import LETTERS
from raydistill.tasks.prompt import Prompt

Score = Callable[[Sequence[str], Sequence[str]], Sequence[SequenceScore]]
"""The scores of completions after the prompts at the same places, such as `Scorer.score`."""
Continuations = Literal["letters", "texts"]


@dataclass(frozen=True)
class OptionAccuracy:
    """How often the likeliest option is the right one, over questions."""

    acc: Estimate
    """By the sum of log-probabilities."""
    acc_norm: Estimate
    """By log-probability a byte."""
    ties: int
    """Questions where several options are likeliest by the sum, the right one among them: each counts 1 / how many they are."""
    empty: int
    """Questions with an option that has no text. Nothing is as likely as nothing: such an option is never chosen."""


def score_options(
    prompts: Sequence[Prompt], score: Score, continuations: Continuations = "texts", lead: str = " "
) -> list[list[SequenceScore]]:
    """The score of each option of each question as a continuation of the prompt's text: its letter or its text, after `lead`.

    `lead` is what stands between prompt and option: a space after a plain text such as `... Answer:`, nothing at the start of a chat turn.
    `bytes` are those of the option alone. All options go to `score` at once. Raises ValueError for a prompt without options.
    """
    written = [written_options(prompt, continuations) for prompt in prompts]
    texts = [prompt.text for prompt, options in zip(prompts, written, strict=True) for _ in options]
    flat = [option for options in written for option in options]
    scores = iter(score(texts, [lead + option for option in flat]))
    return [[replace(next(scores), bytes=len(option.encode())) for option in options] for options in written]


def written_options(prompt: Prompt, continuations: Continuations) -> tuple[str, ...]:
    """What is scored of each option. Raises ValueError for a prompt without options."""
    if not prompt.options:
        raise ValueError(f"prompt {prompt.id} has no options")
    return LETTERS[: len(prompt.options)] if continuations == "letters" else tuple(option.strip() for option in prompt.options)


def option_accuracy(scores_BO: Sequence[Sequence[SequenceScore]], right_B: Sequence[int]) -> OptionAccuracy:
    """Accuracy of the likeliest options, with t intervals over questions; `right_B` are the places of the right ones.

    Where the right option ties with others, exactly, the question counts 1 / how many they are. An option of no bytes is never chosen.
    Raises ValueError without a question, for a place that is none of the question's, and for a score that is NaN.
    """
    for scores, right in zip(scores_BO, right_B, strict=True):
        if not 0 <= right < len(scores):
            raise ValueError(f"the right option is number {right}, counted from 0, of {len(scores)}")
    sums = [_share([_sum(score) for score in scores], right) for scores, right in zip(scores_BO, right_B, strict=True)]
    rates = [_share([_rate(score) for score in scores], right) for scores, right in zip(scores_BO, right_B, strict=True)]
    return OptionAccuracy(
        acc=mean_estimate(sums),
        acc_norm=mean_estimate(rates),
        ties=sum(0 < share < 1 for share in sums),
        empty=sum(any(not score.bytes for score in scores) for scores in scores_BO),
    )


def _sum(score: SequenceScore) -> float:
    return score.logprob if score.bytes else -math.inf


def _rate(score: SequenceScore) -> float:
    return score.logprob / score.bytes if score.bytes else -math.inf


def _share(values: Sequence[float], right: int) -> float:
    """1 / the number of greatest values where the right one is among them, else 0."""
    if any(math.isnan(value) for value in values):
        raise ValueError("the score of an option is NaN")
    most = max(values)
    return 1 / values.count(most) if values[right] == most > -math.inf else 0.0
