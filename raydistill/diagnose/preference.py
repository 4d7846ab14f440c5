"""The gap between teacher and student: wrong-trace preference, how often a model finds a wrong trace likelier than a right one."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from raydistill.evaluate.intervals import Estimate, mean_estimate

_RESULT = re.compile(r"=\s*\$?\s*-?(\d+(?![\dx]))(?:[.,]\d+)*")
"""What a step comes to: a number after `=`; not a coefficient, or one taken back (`4x`)."""
_RESULTS = {"arithmetic": re.compile(rf"{_RESULT.pattern}|=([a-j](?![A-Za-z]))")}
"""Of tasks where a letter may stand for a digit: the cipher's."""
_DIGITS, _LETTERS = "0123456789", "abcdefghij"


@dataclass(frozen=True)
class Rivals:
    """A prompt's wrong traces and right ones, by their scores under one model, in nats a byte."""

    wrong: tuple[float, ...]
    right: tuple[float, ...]
    paired: bool
    """Whether each wrong trace is a right one, at the same place, with a corrupted step; else every wrong one meets every right one."""

    @property
    def pairs(self) -> list[tuple[float, float]]:
        """(wrong, right) scores."""
        if self.paired:
            return list(zip(self.wrong, self.right, strict=True))
        return [(wrong, right) for wrong in self.wrong for right in self.right]


def paired_rate(rivals: Sequence[Rivals]) -> Estimate:
    """Probability that a model scores a wrong trace above a right one for the same prompt; a tie counts half. 0.5 is a coin.

    The mean over prompts of each prompt's rate. Raises ValueError without a prompt that has a pair.
    """
    return mean_estimate([sum(map(_above, one.pairs)) / len(one.pairs) for one in rivals if one.pairs])


def auc(rivals: Sequence[Rivals]) -> Estimate:
    """Probability that a wrong trace of any prompt scores above a right one of any prompt (Mann and Whitney); a tie counts half.

    Prompts with wrong traces alone, or right ones alone, count too. The interval clusters by prompt: DeLong's components summed within
    prompts (Obuchowski 1997). Raises ValueError without a wrong and a right trace.
    """
    wrong_W = np.array([score for one in rivals for score in one.wrong])
    right_R = np.array([score for one in rivals for score in one.right])
    if not len(wrong_W) or not len(right_R):
        raise ValueError("an AUC needs a wrong and a right trace")
    below_W = _placed(right_R, wrong_W)
    above_R = 1 - _placed(wrong_W, right_R)
    area = float(below_W.mean())
    ends = [np.cumsum([len(scores) for scores in side])[:-1] for side in zip(*((one.wrong, one.right) for one in rivals), strict=True)]
    parts = zip(np.split(below_W - area, ends[0]), np.split(above_R - area, ends[1]), strict=True)
    moved = [float(wrong.sum()) / len(wrong_W) + float(right.sum()) / len(right_R) for wrong, right in parts]
    return mean_estimate([area + len(rivals) * one for one in moved])


def corrupt_step(trace: str, task: str, rng: random.Random) -> tuple[str, int] | None:
    """The trace with the result of one step, chosen by `rng`, changed in one character, and the place where that result ends.

    `task` is the kind of the task: a letter is a result only where it stands for a digit, in arithmetic; elsewhere results are numbers.
    Length and all else stay, and so does the answer at the end, unless the last result is the answer itself. None where no step has a
    result after `=`.
    """
    results = list(_RESULTS.get(task, _RESULT).finditer(trace))
    if not results:
        return None
    found = rng.choice(results)
    place = rng.randrange(*found.span(found.lastindex or 0))
    symbols = _DIGITS if trace[place].isdecimal() else _LETTERS
    return trace[:place] + rng.choice([one for one in symbols if one != trace[place]]) + trace[place + 1 :], found.end()


def _above(pair: tuple[float, float]) -> float:
    wrong, right = pair
    return 0.5 if wrong == right else float(wrong > right)


def _placed(others: np.ndarray, own: np.ndarray) -> np.ndarray:
    """For each of `own` the share of `others` below it, ties half."""
    ordered = np.sort(others)
    return (np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")) / (2 * len(ordered))
