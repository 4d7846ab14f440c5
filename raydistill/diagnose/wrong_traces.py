"""Wrong traces to set beside right ones: the teacher's own where there are enough, else right or gold ones with a corrupted step."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from raydistill.diagnose.preference import Rivals, corrupt_step
from raydistill.diagnose.sampled import Sampled

FEWEST_PROMPTS = 10
"""Prompts with a pair below which the teacher's own do not do: many pairs of few prompts hang together."""

Source = Literal["own", "corrupted", "gold"]
SOURCES: Mapping[str, str] = {
    "own": "the teacher's own wrong traces",
    "corrupted": "right traces with one corrupted step",
    "gold": "gold completions with one corrupted step",
}
"""By `Source`, in words."""

Text = tuple[int, str]
"""A prompt's place and a completion of it."""
Fits = Callable[[int, str], bool]
"""Whether such a completion can be scored."""


@dataclass(frozen=True)
class WrongTraces:
    """By prompt, wrong traces and right ones."""

    source: Source
    """`own`: each wrong trace of the teacher meets each right one of its prompt; else a right or gold one meets itself, corrupted."""
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
            Rivals(tuple(next(scores) for _ in wrong), tuple(next(scores) for _ in right), self.source != "own")
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
    """The teacher's own where `wanted` pairs of FEWEST_PROMPTS prompts are, else its right ones corrupted, else gold ones corrupted.

    Where none of them are enough, the more of the last two. Left out are truncated completions and those that do not fit.
    """
    own = _own(teacher, fits)
    pairs_B = [len(wrong) * len(right) for wrong, right in own]
    pairs, prompts = sum(pairs_B), sum(map(bool, pairs_B))
    if pairs >= wanted and prompts >= FEWEST_PROMPTS:
        return WrongTraces("own", pairs, prompts, tuple(w for w, _ in own), tuple(r for _, r in own))
    gold = [[one.gold] if one.gold and fits(place, one.gold) else [] for place, one in enumerate(teacher.prompts)]
    sources: tuple[tuple[Source, Sequence[Sequence[str]]], ...] = (("corrupted", [right for _, right in own]), ("gold", gold))
    found = [WrongTraces(source, pairs, prompts, *_corrupted(right_BG, task, seed, fits)) for source, right_BG in sources]
    return found[0] if found[0].pairs >= min(wanted, found[1].pairs) else found[1]


def _own(teacher: Sampled, fits: Fits) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Distinct (wrong, right) texts of each prompt."""
    found: list[tuple[dict[str, None], dict[str, None]]] = [({}, {}) for _ in teacher.prompts]
    for place, completion, right in teacher.clean():
        if not completion.truncated and completion.text and fits(place, completion.text):
            found[place][int(right)][completion.text] = None
    return [(tuple(wrong), tuple(right)) for wrong, right in found]


def _corrupted(
    right_BG: Sequence[Sequence[str]], task: str, seed: int, fits: Fits
) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[str, ...], ...]]:
    """By prompt, corrupted texts and what they were; those without a step to corrupt are left out."""
    rows = []
    for place, right in enumerate(right_BG):
        rng = random.Random(f"{seed}:{place}")
        both = [(slip[0], text) for text in right if (slip := corrupt_step(text, task, rng)) is not None and fits(place, slip[0])]
        rows.append((tuple(wrong for wrong, _ in both), tuple(text for _, text in both)))
    return tuple(wrong for wrong, _ in rows), tuple(right for _, right in rows)
