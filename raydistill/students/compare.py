"""What a student is compared with at each token of its lessons: the token itself, a teacher with its tokenizer, or one with another.

Axes: K, the lessons' completion tokens in the student's tokenisation, one lesson after the other; V, the student's vocabulary; S, spans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raydistill.students.align import Span, align
from raydistill.students.cross_losses import span_kl_loss, span_logprobs
from raydistill.students.data import Encoded
from raydistill.students.distil import Objective
from raydistill.students.losses import TopK, sft_loss, topk_jsd_loss
from raydistill.students.offline import ScoredTrace
from raydistill.students.spelling import Spelling


@dataclass(frozen=True)
class Lesson:
    """A completion that a student learns from."""

    own: Encoded
    """As the student reads it, with its end token if it ended."""
    prompt: str
    text: str
    ended: bool


class Comparison(Protocol):
    """The loss of a micro-batch."""

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        """The loss summed over K, in nats; and, over K too, the teacher's probability of the tokens that the student was told of.

        The latter is NaN where that is not asked. `said` is what the teacher says of each lesson.
        """
        ...


class WithTokens:
    """Cross-entropy: what was said by whom makes no difference."""

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        return sft_loss(logits_KV, _ids(lessons, logits_KV)), math.nan


@dataclass(frozen=True)
class ByToken:
    """Generalised JSD over the teacher's likeliest tokens and a tail, at each token."""

    objective: Objective

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        logprobs = torch.cat([trace.topk.logprobs_MK for trace in said]).to(logits_KV.device)
        ids = torch.cat([trace.topk.ids_MK for trace in said]).to(logits_KV.device)
        loss, mass = topk_jsd_loss(logits_KV, TopK(logprobs, ids), self.objective.jsd_beta, self.objective.temperature)
        return loss, float(mass)


@dataclass(frozen=True)
class BySpan:
    """KL(teacher || student) of each span of bytes that both tokenisations bound."""

    student: Spelling
    teacher: Spelling

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        pairs = zip(lessons, said, strict=True)
        spans = [span for lesson, trace in pairs for span in self._spans(lesson, trace)]
        lengths_S = torch.tensor([len(span.student) for span in spans], device=logits_KV.device)
        theirs_S = torch.tensor([len(span.teacher) for span in spans], device=logits_KV.device)
        own_K = logits_KV.log_softmax(-1).gather(-1, _ids(lessons, logits_KV)[:, None])[:, 0]
        teacher_M = torch.cat([trace.logprobs_T for trace in said]).to(own_K)
        return span_kl_loss(span_logprobs(own_K, lengths_S), span_logprobs(teacher_M, theirs_S)), math.nan

    def _spans(self, lesson: Lesson, trace: ScoredTrace) -> list[Span]:
        student, teacher = self.student.spell(lesson.own.completion_ids), self.teacher.spell(trace.token_ids_T.tolist())
        return align(student, teacher, lesson.text, lesson.ended)


def _ids(lessons: Sequence[Lesson], like: Tensor) -> Tensor:
    """(K,)"""
    return torch.tensor([id_ for lesson in lessons for id_ in lesson.own.completion_ids], device=like.device)
