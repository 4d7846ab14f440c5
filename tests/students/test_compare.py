"""What a micro-batch's loss is, against the plain losses and by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from raydistill.models.trio import character_tokenizer
from raydistill.students.align import align
from raydistill.students.compare import BySpan, ByToken, Lesson, WithTokens
from raydistill.students.data import Reader, Trace
from raydistill.students.distil import Objective
from raydistill.students.losses import TopK, jsd_loss, sft_loss, teacher_topk
from raydistill.students.offline import ScoredTrace
from raydistill.students.spelling import read_spelling
from tests.students.small_tokenizers import small_tokenizer

TEXTS = [("1+2=", "1+2=3;#3", True), ("7=", "#7", False), ("4-1=", "~AB 4-1=3;#3", True)]
V = 48


def lessons(tokenizer: Any) -> list[Lesson]:
    reader = Reader(tokenizer, "plain", "{prompt}", tokenizer.eos_token_id)
    return [Lesson(reader.trace(Trace(*text)), *text) for text in TEXTS]


def said(taken: list[Lesson], logits_KV: torch.Tensor, k: int, temperature: float = 1.0) -> list[ScoredTrace]:
    """What a teacher with these logits says, lesson by lesson."""
    parts, scored = logits_KV.split([len(lesson.own.completion_ids) for lesson in taken]), []
    for lesson, part in zip(taken, parts, strict=True):
        ids_T = torch.tensor(lesson.own.completion_ids)
        scored.append(ScoredTrace(ids_T, part.log_softmax(-1).gather(-1, ids_T[:, None])[:, 0], teacher_topk(part, k, temperature)))
    return scored


def random_logits(taken: list[Lesson], seed: int) -> torch.Tensor:
    count = sum(len(lesson.own.completion_ids) for lesson in taken)
    return torch.randn((count, V), generator=torch.Generator().manual_seed(seed)).mul_(2)


@pytest.mark.parametrize(("jsd_beta", "temperature"), [(0.0, 1.0), (0.3, 2.0), (1.0, 1.0)])
def test_by_token_with_the_whole_vocabulary_is_the_plain_loss(jsd_beta: float, temperature: float) -> None:
    taken = lessons(character_tokenizer())
    student, teacher = random_logits(taken, 0).requires_grad_(), random_logits(taken, 1)
    loss, mass = ByToken(Objective(jsd_beta, 0.0, temperature))(student, taken, said(taken, teacher, V, temperature))
    plain = student.detach().clone().requires_grad_()
    expected = jsd_loss(plain, teacher, jsd_beta, temperature)
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value, logits in ((loss, student), (expected, plain))))
    assert mass == pytest.approx(len(student), rel=1e-5)


def test_by_token_reports_the_mass_of_what_is_told() -> None:
    taken = lessons(character_tokenizer())
    teacher = random_logits(taken, 1)
    _, mass = ByToken(Objective(0.0, 0.0))(random_logits(taken, 0), taken, said(taken, teacher, k=3))
    assert mass == pytest.approx(float(teacher.softmax(-1).topk(3).values.sum()), rel=1e-5)


def test_with_tokens_is_cross_entropy() -> None:
    taken = lessons(character_tokenizer())
    logits = random_logits(taken, 0)
    ids = torch.tensor([id_ for lesson in taken for id_ in lesson.own.completion_ids])
    loss, mass = WithTokens()(logits, taken, [])
    torch.testing.assert_close(loss, sft_loss(logits, ids))
    assert math.isnan(mass)


def test_by_span_with_one_tokenizer_is_a_binary_kl_of_each_token() -> None:
    tokenizer = character_tokenizer()
    taken, spelling = lessons(tokenizer), read_spelling("model", tokenizer)
    student, teacher = random_logits(taken, 0), random_logits(taken, 1)
    loss, _ = BySpan(spelling, spelling)(student, taken, said(taken, teacher, k=1))
    ids = torch.tensor([id_ for lesson in taken for id_ in lesson.own.completion_ids])[:, None]
    q, p = (logits.double().softmax(-1).gather(-1, ids)[:, 0] for logits in (student, teacher))
    expected = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_by_span_sums_the_log_probabilities_between_bytes_that_both_bound() -> None:
    """Against a loop over the spans, the teacher's tokens being other ones than the student's."""
    student_tokenizer, teacher_tokenizer = character_tokenizer(), small_tokenizer("byte-level")
    taken = lessons(student_tokenizer)
    own, other = read_spelling("student", student_tokenizer), read_spelling("teacher", teacher_tokenizer)
    reader = Reader(teacher_tokenizer, "plain", "{prompt}", teacher_tokenizer.eos_token_id)
    student = random_logits(taken, 0)
    stream = torch.Generator().manual_seed(1)
    scored, expected, start = [], 0.0, 0
    for lesson in taken:
        read = reader.trace(Trace(lesson.prompt, lesson.text, lesson.ended))
        logprobs_T = -torch.rand(len(read.completion_ids), generator=stream) - 0.01
        scored.append(ScoredTrace(torch.tensor(read.completion_ids), logprobs_T, TopK(logprobs_T[:, None], logprobs_T[:, None].long())))
        ids = torch.tensor(lesson.own.completion_ids)
        rows = student[start : start + len(ids)].double().log_softmax(-1).gather(-1, ids[:, None])[:, 0]
        start += len(ids)
        for span in align(own.spell(lesson.own.completion_ids), other.spell(read.completion_ids), lesson.text, lesson.ended):
            q = rows[span.student.start : span.student.stop].sum().exp()
            p = logprobs_T.double()[span.teacher.start : span.teacher.stop].sum().exp()
            expected += float(p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log())
    loss, _ = BySpan(own, other)(student, taken, scored)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
