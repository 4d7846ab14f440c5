"""Has scorers score a teacher's traces and writes what they say, in a Ray task, so that none of it goes through the driver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from raydistill.models.lineup import Role
from raydistill.scoring.actor import answers
from raydistill.scoring.forward import TokenTopK
from raydistill.students.data import Trace
from raydistill.students.job import make_reader
from raydistill.students.offline_writer import score_traces, scoring_of, write_offline

_BATCH = 64
"""Traces that a scorer is sent at once."""


def ask(
    scorers: Sequence[Any], prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]], k: int, temperature: float
) -> list[TokenTopK]:
    """`Scorer.token_topk`, shared out among scorer actors that hold one model."""
    share = -(-len(prompts) // len(scorers))
    parts = [slice(start, start + share) for start in range(0, len(prompts), share)]
    calls = [s.token_topk.remote(prompts[part], completions[part], k, temperature) for s, part in zip(scorers, parts, strict=False)]
    return [one for part in answers(calls) for one in part]


def write_scored(folder: Path, teacher: Role, traces: Sequence[Trace], k: int, temperature: float, scorers: Sequence[Any]) -> None:
    """Write the teacher's `k` likeliest tokens at each token of the traces to `folder`, for an `OfflineTeacher`.

    All scorers hold the teacher.
    """

    def score(prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> list[TokenTopK]:
        return ask(scorers, prompts, completions, k, temperature)

    reader = make_reader(teacher.facts, teacher.config)
    scored = score_traces(score, reader, traces, batch=_BATCH * len(scorers))
    write_offline(folder, scoring_of(teacher.facts, teacher.config, k, temperature), scored)
