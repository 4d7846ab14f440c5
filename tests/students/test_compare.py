"""What a micro-batch's loss is, against the plain losses and by hand."""

from __future__ import annotations

import math
from itertools import zip_longest
from typing import Any

import pytest
import torch

from raydistill.models.trio import character_tokenizer
from raydistill.students.align import align
from raydistill.students.compare import ByGOLD, BySample, BySpan, ByToken, ByULD, Lesson, WithTokens, partners
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


def test_by_sample_is_the_log_ratio_of_the_sampled_tokens() -> None:
    """And its gradient that of the policy gradient with minus it for a reward, by hand at each token."""
    taken = lessons(character_tokenizer())
    student, teacher = random_logits(taken, 0).requires_grad_(), random_logits(taken, 1)
    loss, mass = BySample()(student, taken, said(taken, teacher, k=1))
    expected, gradient = 0.0, torch.zeros_like(student)
    for place, id_ in enumerate(id_ for lesson in taken for id_ in lesson.own.completion_ids):
        q = student[place].detach().softmax(-1)
        ratio = float(q[id_].log() - teacher[place].log_softmax(-1)[id_])
        expected += ratio
        gradient[place] = ratio * (torch.eye(V)[id_] - q)
    assert loss.item() == pytest.approx(expected, rel=1e-4)
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], gradient, atol=1e-5, rtol=1e-4)
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


@pytest.mark.parametrize("k", [3, 400])
def test_uld_and_gold_look_where_both_tokenisations_begin_a_token(k: int) -> None:
    """Against a loop over the spans: a teacher with other tokens, each start on its own, each token and its partner by their bytes."""
    student_tokenizer, teacher_tokenizer = character_tokenizer(), small_tokenizer("byte-level")
    own, other = read_spelling("student", student_tokenizer), read_spelling("teacher", teacher_tokenizer)
    ends = student_tokenizer.eos_token_id, teacher_tokenizer.eos_token_id
    reader = Reader(teacher_tokenizer, "plain", "{prompt}", ends[1])
    taken, stream = lessons(student_tokenizer), torch.Generator().manual_seed(1)
    student = random_logits(taken, 0)
    partner = {id_: own.bytes_V.index(spelled) for id_, spelled in enumerate(other.bytes_V) if spelled in own.bytes_V}
    partner = {id_: one for id_, one in partner.items() if not {one} & own.special_ids and id_ not in other.special_ids} | {
        ends[1]: ends[0]
    }
    scored, uld, gold, mass, start, spans = [], 0.0, 0.0, 0.0, 0, 0
    for lesson in taken:
        read = reader.trace(Trace(lesson.prompt, lesson.text, lesson.ended))
        ids_T = torch.tensor(read.completion_ids)
        logits_TW = 2 * torch.randn((len(ids_T), 400), generator=stream)
        scored.append(ScoredTrace(ids_T, logits_TW.log_softmax(-1).gather(-1, ids_T[:, None])[:, 0], teacher_topk(logits_TW, k)))
        for span in align(own.spell(lesson.own.completion_ids), other.spell(read.completion_ids), lesson.text, lesson.ended):
            p = student[start + span.student.start].double().softmax(-1).tolist()
            t = logits_TW[span.teacher.start].double().softmax(-1).tolist()
            named = sorted(range(400), key=lambda id_: -t[id_])[:k]
            tail = 1 - sum(t[id_] for id_ in named)
            pairs = [(p[partner[id_]], t[id_]) for id_ in named if id_ in partner]
            gold += sum(b * math.log(b / a) - b + a for a, b in pairs)
            gold += _distance(
                [a for id_, a in enumerate(p) if id_ not in partner.values()], [t[i] for i in named if i not in partner], tail
            )
            uld += _distance(p, [t[id_] for id_ in named], tail)
            mass += 1 - tail
            spans += 1
        start += len(lesson.own.completion_ids)
    by_span = BySpan(own, other)
    assert spans < len(student)
    ids = torch.tensor([id_ for lesson in taken for id_ in lesson.own.completion_ids])
    loss, told = ByULD(by_span)(student, taken, scored)
    assert float(loss) == pytest.approx(float(sft_loss(student, ids)) + uld, rel=1e-4)
    assert told / len(student) == pytest.approx(mass / spans, rel=1e-4)
    loss, told = ByGOLD(by_span, partners(own, other, *ends))(student, taken, scored)
    assert float(loss) == pytest.approx(float(by_span(student, taken, scored)[0]) + gold, rel=1e-4)
    assert told / len(student) == pytest.approx(mass / spans, rel=1e-4)


def _distance(student: list[float], teacher: list[float], tail: float) -> float:
    """L1 of sorted probabilities, and of what the student has beyond the teacher's as far as the tail cannot hold it."""
    students, count = sorted(student, reverse=True), len(teacher)
    return sum(abs(a - b) for a, b in zip_longest(students[:count], teacher, fillvalue=0.0)) + max(0.0, sum(students[count:]) - tail)
