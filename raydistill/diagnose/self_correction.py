"""Self-correction collapse: whether a model finds back from a wrong step, and whether it is right where it corrects itself.

A right trace is cut after the result of one step, once as it is and once with that result changed in one place; the model goes on from
both (docs/diagnose.md).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raydistill.diagnose.findings import Json, figure, not_measured
from raydistill.diagnose.preference import corrupt_step
from raydistill.diagnose.references import against
from raydistill.diagnose.sampled import Sampled
from raydistill.evaluate.measure import Generate, check_completions
from raydistill.evaluate.ratios import ratio_estimate
from raydistill.models.text import encode_completion
from raydistill.rollout.completion import Sampling, TokenPrompt
from raydistill.students.data import Reader
from raydistill.tasks.corrections import effects, has_correction
from raydistill.tasks.outcome import Checker, Outcome
from raydistill.tasks.prompt import Prompt

FEWEST = 10
"""Prompts, or completions, below which a share is not told."""

Source = Literal["own", "gold"]


@dataclass(frozen=True)
class Cut:
    """The beginning of a right trace up to the result of one step, and the same with that result wrong."""

    place: int
    """The prompt's."""
    source: Source
    """Whether the teacher wrote the trace or it is the task's gold completion."""
    right: str
    wrong: str


@dataclass(frozen=True)
class Continued:
    """How one model's answers, going on from the two beginnings of a cut, turned out."""

    cut: Cut
    recovered: bool
    """Right after the wrong step."""
    kept: bool
    """Right after the right one."""
    failed: int = 0
    """How many of the two were checked in vain, and count as wrong."""


def cut_traces(teacher: Sampled, task: str, seed: int) -> list[Cut]:
    """One cut of a right trace of the teacher's and one of the gold completion of each prompt that has such, `seed` chooses where.

    Left out are traces that are truncated, have a correction already or have no step to corrupt.
    """
    own: dict[int, str] = {}
    for place, completion, right in teacher.clean():
        if right and not completion.truncated and not has_correction(task, completion.text):
            own.setdefault(place, completion.text)
    gold = {place: one.gold for place, one in enumerate(teacher.prompts) if one.gold and not has_correction(task, one.gold)}
    sources: tuple[tuple[Source, dict[int, str]], ...] = (("own", own), ("gold", gold))
    cuts = [
        _cut(place, source, text, task, random.Random(f"{seed}:{place}:{source}"))
        for source, texts in sources
        for place, text in texts.items()
    ]
    return [cut for cut in cuts if cut is not None]


def _cut(place: int, source: Source, trace: str, task: str, rng: random.Random) -> Cut | None:
    slip = corrupt_step(trace, task, rng)
    if slip is None:
        return None
    wrong, end = slip
    return Cut(place, source, trace[:end], wrong[:end])


def fitting(cuts: Sequence[Cut], prompts: Sequence[Prompt], reader: Reader, max_new_tokens: int, room: int) -> list[Cut]:
    """Those that leave `max_new_tokens` of `room` tokens after prompt and beginning."""
    return [
        cut
        for cut in cuts
        if all(len(_begun(reader, prompts[cut.place], text)) + max_new_tokens <= room for text in (cut.right, cut.wrong))
    ]


def continuations(
    generate: Generate, reader: Reader, prompts: Sequence[Prompt], cuts: Sequence[Cut], checker: Checker, max_new_tokens: int, seed: int
) -> list[Continued]:
    """One model's continuations of every cut, sampled at temperature 1, checked together with what they go on from.

    Beginnings are put to the model as token ids in its reader's own tokenisation. One stream for both beginnings of a cut. What holds a
    special token is wrong.
    """
    texts = [(cut, text) for cut in cuts for text in (cut.wrong, cut.right)]
    asked = [TokenPrompt(f"{prompts[cut.place].id} {cut.source}", _begun(reader, prompts[cut.place], text)) for cut, text in texts]
    found = generate(asked, Sampling(1, max_new_tokens, seed=seed)) if asked else []
    whole = [[replace(one, text=text + one.text) for one in row] for (_, text), row in zip(texts, found, strict=True)]
    outcomes = check_completions(checker, [prompts[cut.place] for cut, _ in texts], whole)
    ends = [outcome for (outcome,) in outcomes]
    return [
        Continued(cut, wrong is Outcome.RIGHT, right is Outcome.RIGHT, wrong.failed + right.failed)
        for cut, wrong, right in zip(cuts, ends[::2], ends[1::2], strict=True)
    ]


def _begun(reader: Reader, prompt: Prompt, text: str) -> tuple[int, ...]:
    return (*reader.prompt(prompt.text), *encode_completion(reader.tokenizer, text))


# --- figures


def self_correction_collapse(
    student: Sampled, teacher: Sampled, student_back: Sequence[Continued], teacher_back: Sequence[Continued], task: str
) -> Json:
    """The student's recovery, with its accuracy after the same beginnings uncorrupted as reference; both models' figures beside it."""
    other = _of_model(teacher, teacher_back, task)
    own = against(_of_model(student, student_back, task), other)
    return own["recovery"] | {"student": own, "teacher": other}


def _of_model(sampled: Sampled, back: Sequence[Continued], task: str) -> Json:
    return recovery(back) | {"corrections": corrections(sampled, task)}


def recovery(back: Sequence[Continued]) -> Json:
    """Shares of right answers after a wrong step and after the same beginning without it, and the first by source."""
    sources = sorted({one.cut.source for one in back})
    by_source = {source: _recovered([one for one in back if one.cut.source == source]) for source in sources}
    return {"recovery": _recovered(back), "uncorrupted": _share(back, "kept"), "by_source": by_source}


def _recovered(back: Sequence[Continued]) -> Json:
    """With the share after the same beginnings uncorrupted as reference: a model that is wrong more often also recovers less."""
    return _share(back, "recovered", sum(one.kept for one in back) / len(back) if back else None)


def _share(back: Sequence[Continued], name: Literal["recovered", "kept"], reference: float | None = None) -> Json:
    """Clustered by prompt."""
    by_place: dict[int, list[bool]] = {}
    for one in back:
        by_place.setdefault(one.cut.place, []).append(getattr(one, name))
    if len(by_place) < FEWEST:
        return not_measured(f"too few prompts with a right trace that has a step to corrupt: {len(by_place)}, and {FEWEST} are needed") | {
            "n": len(by_place)
        }
    return figure(
        ratio_estimate([sum(row) for row in by_place.values()], [len(row) for row in by_place.values()]), "probability", reference, (0, 1)
    )


def corrections(sampled: Sampled, task: str) -> Json:
    """How often a model corrects itself, what its corrections come to, and the share of right answers with and without.

    Shares that helped and harmed are of all corrections, see `effects`.
    """
    rows = [
        [(has_correction(task, one.text), right) for one, right in zip(completions, rights, strict=True)]
        for completions, rights in zip(sampled.completions_BG, sampled.right_BG, strict=True)
    ]
    rate = ratio_estimate([sum(has for has, _ in row) for row in rows], [len(row) for row in rows])
    with_, without = ([[right for has, right in row if has is wanted] for row in rows] for wanted in (True, False))
    return {
        "rate": figure(rate, "share of completions", None, (0, 1)),
        **_effects(sampled, task),
        "right_with": _right(with_),
        "right_without": _right(without),
    }


def _effects(sampled: Sampled, task: str) -> Json:
    found = [[effects(task, one.text) for one in row] for row in sampled.completions_BG]
    if any(one is None for row in found for one in row):
        why = not_measured("whether a step is right is known in the arithmetic task alone")
        return {"helped": why, "harmed": why}
    by_prompt = [[effect for one in row for effect in one or ()] for row in found]
    return {
        name: _of_kind([[effect == name for effect in row] for row in by_prompt], "share of corrections", "corrections")
        for name in ("helped", "harmed")
    }


def _right(rows: Sequence[Sequence[float]]) -> Json:
    return _of_kind(rows, "share right", "completions")


def _of_kind(rows: Sequence[Sequence[float]], unit: str, counted: str) -> Json:
    """The share of what is so among what is `counted`, by prompt."""
    total = sum(map(len, rows))
    if total < FEWEST:
        return not_measured(f"{total} {counted} of the kind, and {FEWEST} are needed") | {"n": sum(map(bool, rows))}
    return figure(ratio_estimate([sum(row) for row in rows], [len(row) for row in rows]), unit, None, (0, 1)) | {counted: total}
