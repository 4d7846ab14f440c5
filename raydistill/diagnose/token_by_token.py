"""Teacher and student compared token by token, in a process that holds both: tail noise and off-policy instability."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any, Literal

from raydistill.config.diagnose import Diagnose
from raydistill.diagnose import findings, tail_findings
from raydistill.diagnose.comparer import BINS, Tail
from raydistill.diagnose.findings import Json, Rows, not_measured
from raydistill.diagnose.frequency import Frequencies, frequencies
from raydistill.diagnose.growth import growth
from raydistill.diagnose.hands import Ask
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.tail_noise import sizes, tail_sizes
from raydistill.diagnose.token_text import token_text
from raydistill.diagnosis_plan import Pair
from raydistill.rollout.completion import Completion
from raydistill.tasks.prompt import Prompt

_FEWEST_BATCHES = 3
"""Micro-batches whose variance has an interval."""


class TokenByToken:
    """What both models of a pair say in one process; `ask` puts questions to it."""

    def __init__(self, job: Diagnose, pair: Pair, ask: Ask) -> None:
        self._job, self._pair, self._ask = job, pair, ask
        self._ks, self._tail_ks = sizes(pair.shared_ids), tail_sizes(pair.shared_ids)
        self._bin_width = math.ceil(job.max_new_tokens / BINS)

    def divergences(self, teacher: Sampled, student: Sampled) -> tuple[Json, Json]:
        """Tail noise, and off-policy instability but for its gradients."""
        written = frequencies((completion.token_ids for _, completion, _ in teacher.rows()), self._pair.shared_ids)
        (flat, tail), flat_student = self._ask(
            [
                ("compare_with_tail", (*self._tokens(teacher), self._ks, self._bin_width, self._tail_ks, written.class_V)),
                ("compare", (*self._tokens(student), self._ks, self._bin_width)),
            ]
        )
        on_teacher, on_student = _by_prompt(flat, teacher), _by_prompt(flat_student, student)
        return self._noise(on_teacher, tail, written), self._instability(on_teacher, on_student)

    def _noise(self, on_teacher: Rows, tail: Tail, written: Frequencies) -> Json:
        if why := _endless(on_teacher, "forward") or _endless(on_teacher, "reverse"):
            return not_measured(why)
        noise = findings.tail_noise(on_teacher, self._ks)
        return noise | tail_findings.beyond(on_teacher, self._ks, tail, written, self._texts(tail))

    def _instability(self, on_teacher: Rows, on_student: Rows) -> Json:
        if why := _endless(on_teacher, "forward") or _endless(on_student, "forward"):
            return not_measured(why)
        found = findings.off_policy_instability(on_teacher, on_student, self._bin_width)
        return found | {"growth": growth(on_teacher, on_student)}

    def gradients(self, teacher: Sampled, student: Sampled) -> Json:
        """How much the gradient's length varies on texts of either, a completion of each of the same prompts."""
        probe = self._job.gradient_probe
        if probe is None:
            return not_measured("gradient_probe is null")
        prompts = len(teacher.prompts)
        batches = min(probe.batches, prompts // probe.completions)
        if batches < _FEWEST_BATCHES:
            return not_measured(f"{prompts} prompts make {batches} micro-batches of gradient_probe.completions={probe.completions}, of 3")
        drawn = random.Random(f"{self._job.seed}:gradients").sample(range(prompts), batches * probe.completions)
        first = [[(sampled.prompts[place], sampled.completions_BG[place][0]) for place in drawn] for sampled in (teacher, student)]
        asked = [("gradient_norms", (*self._read(rows), probe.completions, probe.micro_batch_tokens)) for rows in first]
        return findings.gradient_noise(*self._ask(asked))

    def _texts(self, tail: Tail) -> list[list[list[str]]]:
        tokenizer = self._pair.teacher_reader.tokenizer
        return [[[token_text(tokenizer, token) for token, _ in row] for row in way] for way in tail.heaviest]

    def _tokens(self, sampled: Sampled) -> tuple[list[Any], list[Any], list[Any]]:
        return self._read([(prompt, completion) for prompt, completion, _ in sampled.rows()])

    def _read(self, rows: Sequence[tuple[Prompt, Completion]]) -> tuple[list[Any], list[Any], list[Any]]:
        """Each completion's prompt as the teacher and as the student reads it, and its tokens."""
        by_reader = [
            [reader.prompt(prompt.text) for prompt, _ in rows] for reader in (self._pair.teacher_reader, self._pair.student_reader)
        ]
        return by_reader[0], by_reader[1], [completion.token_ids for _, completion in rows]


def _endless(rows: Rows, direction: Literal["forward", "reverse"]) -> str | None:
    """Why there is no figure, where a KL has none: log 0 is no number that a mean could be taken of."""
    flat = [getattr(one, direction)[-1] for row in rows for one in row]
    if not (endless := sum(not math.isfinite(kl) for kl in flat)):
        return None
    kl, model = ("KL(teacher || student)", "student") if direction == "forward" else ("KL(student || teacher)", "teacher")
    return f"{kl} is not finite in {endless} of {len(flat)} completions: the {model} gives a token the probability 0, or none"


def _by_prompt(flat: Sequence[Any], sampled: Sampled) -> list[list[Any]]:
    """One value a completion, regrouped."""
    values = iter(flat)
    return [[next(values) for _ in row] for row in sampled.completions_BG]
