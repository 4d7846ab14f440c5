"""Answer probabilities over samples: how sure a model is of its answer by how often it comes to it (Wang et al. 2023, self-consistency).

Axes: B, prompts; G, completions of a prompt.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.diagnose.calibration_error import Answer
from raydistill.diagnose.sampled import Sampled
from raydistill.rollout.completion import Completion
from raydistill.tasks.answers import answer_span

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Vote:
    """What a prompt's completions say together."""

    shares: tuple[float, ...]
    """Of the completions that have an answer, those that give each distinct one, the most frequent first."""
    right: bool
    """Whether the majority's answer is right, by the first completion that gives it."""
    answers: int

    @property
    def entropy(self) -> float:
        """Of the shares, in nats: 0 where all agree, log(answers) where no two do."""
        return max(0.0, -math.fsum(share * math.log(share) for share in self.shares))

    @property
    def as_answer(self) -> Answer:
        """The majority's share as a confidence in its answer."""
        return Answer(self.shares[0], self.right)


def votes(sampled: Sampled, task: str, samples: int) -> list[Vote | None]:
    """For each prompt the vote of its first `samples` completions; None where fewer than two of them have an answer."""
    return [
        vote([(answer_text(one, task), bool(right)) for one, right in zip(row[:samples], rights[:samples], strict=True)])
        for row, rights in zip(sampled.completions_BG, sampled.right_BG, strict=True)
    ]


def vote(answers_G: Sequence[tuple[str | None, bool]]) -> Vote | None:
    """Of one prompt's (answer, right); those without an answer do not vote. Of equally frequent ones the first given wins."""
    given = [(text, right) for text, right in answers_G if text is not None]
    if len(given) < 2:
        return None
    counted = Counter(text for text, _ in given).most_common()
    return Vote(
        tuple(count / len(given) for _, count in counted), next(right for text, right in given if text == counted[0][0]), len(given)
    )


def answer_text(completion: Completion, task: str) -> str | None:
    """The answer, alike where it is written alike; None where it has none, was truncated or has a special token inside."""
    if completion.truncated or completion.has_special:
        return None
    span = answer_span(task, completion.text)
    return None if span is None else normalised(completion.text.encode()[slice(*span)].decode())


def normalised(answer: str) -> str:
    """Without case, blanks, thousands separators, dollar signs and a full stop at the end. No mathematics: 0.5 and 1/2 are two answers."""
    return "".join(_THOUSANDS.sub("", answer).casefold().replace("$", "").split()).rstrip(".")
