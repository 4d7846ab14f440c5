"""Wrong traces to set beside right ones: the teacher's own where there are enough, else right ones with a corrupted step."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from raydistill.diagnose.preference import Rivals, corrupt_step
from raydistill.diagnose.sampled import Sampled

FEWEST_PROMPTS = 10
"""Prompts with a pair below which the teacher's own do not do: many pairs of few prompts hang together."""

Text = tuple[int, str]
"""A prompt's place and a completion of it."""
Fits = Callable[[int, str], bool]
"""Whether such a completion can be scored."""


@dataclass(frozen=True)
class WrongTraces:
    """By prompt, wrong traces and right ones."""

    source: Literal["own", "corrupted"]
    """`own`: each wrong trace of the teacher meets each right one of its prompt; `corrupted`: a right one meets itself, corrupted."""
    own_pairs: int
    """Pairs of the teacher's own, whether there were enough or not."""
    own_prompts: int
    """Prompts that they are of."""
    wrong_BG: tuple[tuple[str, ...], ...]
    right_BG: tuple[tuple[str, ...], ...]

    @property
    def pairs(self) -> int:
        if self.source == "own":
            return self.own_pairs
        return sum(map(len, self.wrong_BG))

    def texts(self) -> list[Text]:
        """All that has to be scored."""
        rows = zip(self.wrong_BG, self.right_BG, strict=True)
        return [(place, text) for place, (wrong, right) in enumerate(rows) for text in (*wrong, *right)]

    def rivals(self, per_byte: Sequence[float]) -> list[Rivals]:
        """With one model's scores of `texts()`, in order; prompts without a trace are left out, those with one kind alone not."""
        scores = iter(per_byte)
        rows = [
            Rivals(tuple(next(scores) for _ in wrong), tuple(next(scores) for _ in right), self.source == "corrupted")
            for wrong, right in zip(self.wrong_BG, self.right_BG, strict=True)
        ]
        return [one for one in rows if one.wrong or one.right]


NO_WRONG_TRACES = WrongTraces("own", 0, 0, (), ())
"""Where a task has none."""


def too_few_pairs(section: str, wanted: int, prompts: int, samples: int) -> list[str]:
    """A warning where there cannot be `wanted` pairs; `section` stands before the field's name.

    A prompt with G samples has at most G pairs of a trace and its corruption, and at most G^2 / 4 of right and wrong ones.
    """
    most = prompts * max(samples, samples**2 // 4)
    if most >= wanted:
        return []
    return [
        f"{section}wrong_pairs: {wanted}, but {prompts} prompts of {samples} samples have at most {most} pairs of a wrong and a right "
        "trace: wrong-trace preference will not be measured; use more prompts or samples, or lower it"
    ]


def wrong_traces(teacher: Sampled, task: str, wanted: int, seed: int, fits: Fits) -> WrongTraces:
    """The teacher's own where `wanted` pairs of FEWEST_PROMPTS prompts are, else corrupted ones.

    Left out are truncated completions and those that do not fit.
    """
    own = _own(teacher, fits)
    pairs_B = [len(wrong) * len(right) for wrong, right in own]
    pairs, prompts = sum(pairs_B), sum(map(bool, pairs_B))
    if pairs >= wanted and prompts >= FEWEST_PROMPTS:
        return WrongTraces("own", pairs, prompts, tuple(w for w, _ in own), tuple(r for _, r in own))
    rows = [_corrupted(right, task, random.Random(f"{seed}:{place}"), partial(fits, place)) for place, (_, right) in enumerate(own)]
    return WrongTraces("corrupted", pairs, prompts, tuple(w for w, _ in rows), tuple(r for _, r in rows))


def _own(teacher: Sampled, fits: Fits) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Distinct (wrong, right) texts of each prompt."""
    found: list[tuple[dict[str, None], dict[str, None]]] = [({}, {}) for _ in teacher.prompts]
    for place, completion, right in teacher.clean():
        if not completion.truncated and completion.text and fits(place, completion.text):
            found[place][int(right)][completion.text] = None
    return [(tuple(wrong), tuple(right)) for wrong, right in found]


def _corrupted(right: Sequence[str], task: str, rng: random.Random, fits: Callable[[str], bool]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    both = [(wrong[0], text) for text in right if (wrong := corrupt_step(text, task, rng)) is not None and fits(wrong[0])]
    return tuple(wrong for wrong, _ in both), tuple(text for _, text in both)
