"""What a student is compared with at each token of its lessons: the token itself, a teacher with its tokenizer, or one with another.

Axes: K, the lessons' completion tokens in the student's tokenisation, one lesson after the other; V, the student's vocabulary; W, the
teacher's; S, spans.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from raydistill.students.align import Span, align
from raydistill.students.cross_losses import gold_loss, span_kl_loss, span_logprobs, span_starts, uld_loss
from raydistill.students.data import Encoded
from raydistill.students.distil import Objective
from raydistill.students.losses import TopK, sampled_reverse_kl_loss, sft_loss, topk_jsd_loss
from raydistill.students.offline import ScoredTrace
from raydistill.students.spelling import Spelling, shared_ids

Lengths = tuple[Tensor, Tensor]
"""Numbers of the student's and of the teacher's tokens in each span, both (S,)."""


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
        loss, mass = topk_jsd_loss(logits_KV, _topk(said, logits_KV), self.objective.jsd_beta, self.objective.temperature)
        return loss, float(mass)


class BySample:
    """The estimate of KL(student || teacher) by the token that the student sampled, at each token."""

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        teacher_K = torch.cat([trace.logprobs_T for trace in said]).to(logits_KV)
        return sampled_reverse_kl_loss(logits_KV, teacher_K, _ids(lessons, logits_KV)), math.nan


@dataclass(frozen=True)
class BySpan:
    """KL(teacher || student) of each span of bytes that both tokenisations bound."""

    student: Spelling
    teacher: Spelling

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        return _span_kl(logits_KV, lessons, said, self.lengths(lessons, said, logits_KV)), math.nan

    def lengths(self, lessons: Sequence[Lesson], said: Sequence[ScoredTrace], like: Tensor) -> Lengths:
        """Of each span, on the device of `like`."""
        spans = [span for lesson, trace in zip(lessons, said, strict=True) for span in self._spans(lesson, trace)]
        students, teachers = [len(span.student) for span in spans], [len(span.teacher) for span in spans]
        return torch.tensor(students, device=like.device), torch.tensor(teachers, device=like.device)

    def _spans(self, lesson: Lesson, trace: ScoredTrace) -> list[Span]:
        student, teacher = self.student.spell(lesson.own.completion_ids), self.teacher.spell(trace.token_ids_T.tolist())
        return align(student, teacher, lesson.text, lesson.ended)


@dataclass(frozen=True)
class ByULD:
    """Cross-entropy of each token, and `uld_loss` where spans start, which alone would not say what token is meant."""

    spans: BySpan

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        student_SV, teacher = _starts(logits_KV, said, self.spans.lengths(lessons, said, logits_KV))
        loss = sft_loss(logits_KV, _ids(lessons, logits_KV)) + uld_loss(student_SV, teacher)
        return loss, _mass(teacher, len(logits_KV))


@dataclass(frozen=True)
class ByGOLD:
    """`BySpan`, and `gold_loss` where spans start: it says nothing of the student's further tokens in a span."""

    spans: BySpan
    student_ids_W: Tensor
    """See `partners`."""

    def __call__(self, logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace]) -> tuple[Tensor, float]:
        lengths = self.spans.lengths(lessons, said, logits_KV)
        student_SV, teacher = _starts(logits_KV, said, lengths)
        of_spans = _span_kl(logits_KV, lessons, said, lengths)
        return of_spans + gold_loss(student_SV, teacher, self.student_ids_W.to(logits_KV.device)), _mass(teacher, len(logits_KV))


def _span_kl(logits_KV: Tensor, lessons: Sequence[Lesson], said: Sequence[ScoredTrace], lengths: Lengths) -> Tensor:
    own_K = logits_KV.log_softmax(-1).gather(-1, _ids(lessons, logits_KV)[:, None])[:, 0]
    teacher_M = torch.cat([trace.logprobs_T for trace in said]).to(own_K)
    students_S, teachers_S = lengths
    return span_kl_loss(span_logprobs(own_K, students_S), span_logprobs(teacher_M, teachers_S))


def _starts(logits_KV: Tensor, said: Sequence[ScoredTrace], lengths: Lengths) -> tuple[Tensor, TopK]:
    """Where spans start, the student's logits (S, V), and what the teacher says."""
    students_S, teachers_S = map(span_starts, lengths)
    topk = _topk(said, logits_KV)
    return logits_KV[students_S], TopK(topk.logprobs_MK[teachers_S], topk.ids_MK[teachers_S])


def partners(student: Spelling, teacher: Spelling, student_end: int, teacher_end: int) -> Tensor:
    """The student's id of each of the teacher's tokens, (W,); -1 where `shared_ids` has none."""
    students, teachers = shared_ids(student, teacher, student_end, teacher_end)
    ids_W = torch.full((len(teacher.bytes_V),), -1)
    ids_W[teachers] = torch.tensor(students)
    return ids_W


def _topk(said: Sequence[ScoredTrace], like: Tensor) -> TopK:
    """Of all lessons, one after the other."""
    logprobs, ids = (torch.cat(parts).to(like.device) for parts in zip(*(trace.topk for trace in said), strict=True))
    return TopK(logprobs, ids)


def _mass(teacher: TopK, tokens: int) -> float:
    """As if its mean over the spans were that of so many tokens."""
    return float(teacher.logprobs_MK.exp().sum()) * tokens / max(1, len(teacher.logprobs_MK))


def _ids(lessons: Sequence[Lesson], like: Tensor) -> Tensor:
    """(K,)"""
    return torch.tensor([id_ for lesson in lessons for id_ in lesson.own.completion_ids], device=like.device)
