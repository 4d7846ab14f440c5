"""Losses on spans against loops, torch.distributions, TRL's GOLD and analytic gradients."""

from __future__ import annotations

import math
from itertools import pairwise, zip_longest
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Bernoulli, Categorical, kl_divergence

from raydistill.models.text import encode_completion
from raydistill.students.align import align
from raydistill.students.compare import partners
from raydistill.students.cross_losses import gold_loss, span_kl_loss, span_logprobs, span_starts, uld_loss
from raydistill.students.losses import TopK, teacher_topk
from raydistill.students.spelling import read_spelling
from tests.students.small_tokenizers import small_tokenizer

SEEDS = st.integers(0, 1000)
PAIRS = {1: 3, 2: 0, 5: 4, 8: 9}
"""The student's id of each token that both of two small vocabularies have, and the teacher's."""
STUDENT_IDS_W = torch.tensor([2, -1, -1, 1, 5, -1, -1, -1, -1, 8, -1, -1, -1])


def _logits(seed: int, vocabulary: int, scale: float = 3.0, positions: int = 5) -> torch.Tensor:
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed)).double()


LOSSES = {
    "uld": uld_loss,
    "gold": lambda student_SV, teacher: gold_loss(student_SV, teacher, STUDENT_IDS_W),
}
ON_LOGITS = {
    "uld": lambda student_SV, teacher_SV: LOSSES["uld"](student_SV, _whole(teacher_SV)),
    "uld of 5": lambda student_SV, teacher_SV: LOSSES["uld"](student_SV, teacher_topk(teacher_SV, 5)),
    "gold": lambda student_SV, teacher_SV: LOSSES["gold"](student_SV, _whole(teacher_SV)),
    "gold of 5": lambda student_SV, teacher_SV: LOSSES["gold"](student_SV, teacher_topk(teacher_SV, 5)),
    "span kl": lambda student_MV, teacher_MV: span_kl_loss(
        span_logprobs(student_MV.log_softmax(-1)[:, 4], torch.tensor([2, 3])),
        span_logprobs(teacher_MV.log_softmax(-1)[:, 7], torch.tensor([4, 1])),
    ),
}


def _whole(teacher_SV: torch.Tensor) -> TopK:
    return teacher_topk(teacher_SV, teacher_SV.shape[1])


@pytest.fixture
def trl(monkeypatch: pytest.MonkeyPatch) -> Any:
    """GOLD's loss with the two vocabularies sharing the tokens of PAIRS: sums over tokens, means over spans."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gold.gold_trainer import ULDLoss

    student = {f"both {PAIRS[id_]}" if id_ in PAIRS else f"student {id_}": id_ for id_ in range(11)}
    teacher = {f"both {id_}" if id_ in PAIRS.values() else f"teacher {id_}": id_ for id_ in range(13)}
    vocabularies = [SimpleNamespace(get_vocab=lambda vocabulary=vocabulary: vocabulary) for vocabulary in (student, teacher)]
    config = SimpleNamespace(
        uld_crossentropy_weight=0.0,
        uld_distillation_weight=1.0,
        uld_student_temperature=1.0,
        uld_teacher_temperature=1.0,
        uld_skip_student_eos=False,
        uld_skip_teacher_eos=False,
        use_extended_uld=True,
        uld_token_merge_strategy="bayesian",
        uld_use_hybrid_loss=False,
        beta=0.0,
        uld_hybrid_matched_weight=1.0,
        uld_hybrid_unmatched_weight=1.0,
    )

    def loss(hybrid: bool, student_SV: torch.Tensor, teacher_SV: torch.Tensor) -> torch.Tensor:
        config.uld_use_hybrid_loss = hybrid
        spans = len(student_SV)
        # A first token stands for the prompt, and logits after the last one are never looked at.
        ids = torch.zeros(1, spans + 1, dtype=torch.long)
        labels = ids.clone()
        labels[:, 0] = -100
        offsets = torch.tensor([[[0, 0], *([place, place + 1] for place in range(spans))]])
        logits = (torch.cat([values, values[:1]])[None] for values in (student_SV, teacher_SV))
        return spans * ULDLoss(config, *vocabularies)(*logits, labels, labels, ids, ids, offsets, offsets)

    return loss


@given(SEEDS, st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_span_logprobs_are_those_of_a_loop(seed: int, lengths: list[int]) -> None:
    logprobs_M = -torch.rand(sum(lengths), generator=torch.Generator().manual_seed(seed)).double()
    starts = [sum(lengths[:place]) for place in range(len(lengths))]
    expected = [sum(logprobs_M[start : start + length].tolist()) for start, length in zip(starts, lengths, strict=True)]
    assert span_logprobs(logprobs_M, torch.tensor(lengths)).tolist() == pytest.approx(expected)
    assert span_starts(torch.tensor(lengths)).tolist() == starts


def test_spans_must_hold_all_tokens() -> None:
    with pytest.raises(RuntimeError):
        span_logprobs(torch.zeros(4), torch.tensor([2, 1]))


@given(SEEDS)
def test_span_kl_is_that_of_bernoullis(seed: int) -> None:
    student_S, teacher_S = torch.rand(2, 7, generator=torch.Generator().manual_seed(seed)).double().clamp(1e-5, 1 - 1e-5)
    expected = kl_divergence(Bernoulli(teacher_S), Bernoulli(student_S)).sum()
    torch.testing.assert_close(span_kl_loss(student_S.log(), teacher_S.log()), expected, atol=1e-9, rtol=1e-9)


@given(SEEDS)
def test_span_kl_of_single_tokens_is_at_most_the_whole_kl(seed: int) -> None:
    student_SV, teacher_SV = _logits(seed, 11), _logits(seed + 1, 11)
    ids_S = torch.randint(11, (5, 1), generator=torch.Generator().manual_seed(seed))
    logprobs = [values.log_softmax(-1).gather(1, ids_S)[:, 0] for values in (student_SV, teacher_SV)]
    whole = kl_divergence(Categorical(logits=teacher_SV), Categorical(logits=student_SV)).sum()
    assert 0 < span_kl_loss(*logprobs) < whole


def test_span_kl_of_two_outcomes_is_the_whole_kl() -> None:
    """Nothing is merged then."""
    student_SV, teacher_SV = _logits(1, 2), _logits(2, 2)
    whole = kl_divergence(Categorical(logits=teacher_SV), Categorical(logits=student_SV)).sum()
    torch.testing.assert_close(span_kl_loss(student_SV.log_softmax(-1)[:, 1], teacher_SV.log_softmax(-1)[:, 1]), whole)


@pytest.mark.parametrize("student", [0.0, 1e-6, -1e-8, -0.5, -90.0, -5000.0])
@pytest.mark.parametrize("teacher", [0.0, 1e-6, -1e-8, -0.5, -90.0, -5000.0])
def test_span_kl_is_finite_and_not_negative_in_float32(student: float, teacher: float) -> None:
    """Rounding puts a certain token at 0 or just above it."""
    student_S = torch.tensor([student], requires_grad=True)
    loss = span_kl_loss(student_S, torch.tensor([teacher]))
    loss.backward()
    assert math.isfinite(loss.item())
    assert loss.item() >= 0
    assert student_S.grad is not None
    assert math.isfinite(student_S.grad.item())
    if student == teacher:
        assert loss.item() == 0


def test_span_kl_raises_what_the_teacher_finds_likelier_and_lowers_the_rest() -> None:
    student_S = torch.tensor([0.2, 0.2, 0.2]).log().requires_grad_()
    span_kl_loss(student_S, torch.tensor([0.9, 0.2, 0.01]).log()).backward()
    assert student_S.grad is not None
    up, level, down = student_S.grad.tolist()
    assert up == pytest.approx(-(0.9 - 0.2) / 0.8)
    assert level == pytest.approx(0, abs=1e-6)
    assert down == pytest.approx((0.2 - 0.01) / 0.8)


@pytest.mark.parametrize("sizes", [(11, 13), (13, 11), (11, 11)])
def test_uld_is_that_of_a_loop(sizes: tuple[int, int]) -> None:
    student_SV, teacher_SV = _logits(1, sizes[0]), _logits(2, sizes[1])
    expected = 0.0
    for student_V, teacher_V in zip(student_SV.softmax(-1).tolist(), teacher_SV.softmax(-1).tolist(), strict=True):
        padded = [sorted(values + [0.0] * (13 - len(values))) for values in (student_V, teacher_V)]
        expected += sum(abs(a - b) for a, b in zip(*padded, strict=True))
    assert uld_loss(student_SV, _whole(teacher_SV)).item() == pytest.approx(expected)


@given(SEEDS)
def test_uld_is_zero_whatever_the_order_of_the_vocabulary(seed: int) -> None:
    logits_SV = _logits(seed, 11)
    order_V = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
    assert uld_loss(logits_SV, _whole(logits_SV[:, order_V])).item() == pytest.approx(0, abs=1e-12)
    assert uld_loss(logits_SV, _whole(_logits(seed + 1, 11))).item() > 0


def test_uld_and_gold_are_those_of_trl(trl: Any) -> None:
    """TRL's KL over shared tokens lacks the difference of the sums, without which it can be negative."""
    student_SV, teacher_SV = _logits(3, 11), _logits(4, 13)
    torch.testing.assert_close(uld_loss(student_SV, _whole(teacher_SV)), trl(False, student_SV, teacher_SV), atol=1e-9, rtol=1e-9)
    shared = student_SV.softmax(-1)[:, [*PAIRS]].sum() - teacher_SV.softmax(-1)[:, [*PAIRS.values()]].sum()
    ours = gold_loss(student_SV, _whole(teacher_SV), STUDENT_IDS_W)
    torch.testing.assert_close(ours - shared, trl(True, student_SV, teacher_SV), atol=1e-6, rtol=1e-6)
    assert abs(shared) > 0.1


@given(SEEDS)
def test_gold_is_that_of_a_loop(seed: int) -> None:
    student_SV, teacher_SV = _logits(seed, 11), _logits(seed + 1, 13)
    expected = 0.0
    for student_V, teacher_V in zip(student_SV.softmax(-1).tolist(), teacher_SV.softmax(-1).tolist(), strict=True):
        shared = [(student_V[one], teacher_V[other]) for one, other in PAIRS.items()]
        expected += sum(q * math.log(q / p) - q + p for p, q in shared)
        others = (
            [p for id_, p in enumerate(student_V) if id_ not in PAIRS],
            [q for id_, q in enumerate(teacher_V) if id_ not in PAIRS.values()],
        )
        expected += sum(abs(p - q) for p, q in zip_longest(*(sorted(values)[::-1] for values in others), fillvalue=0.0))
    assert gold_loss(student_SV, _whole(teacher_SV), STUDENT_IDS_W).item() == pytest.approx(expected)


@given(SEEDS, st.integers(1, 13), st.sampled_from([(11, 13), (13, 11), (5, 13)]))
def test_uld_of_the_teachers_likeliest_is_that_of_a_loop(seed: int, k: int, sizes: tuple[int, int]) -> None:
    student_SV, teacher_SV = _logits(seed, sizes[0]), _logits(seed + 1, sizes[1])
    k, expected = min(k, sizes[1]), 0.0
    for student_V, teacher_V in zip(student_SV.softmax(-1).tolist(), teacher_SV.softmax(-1).tolist(), strict=True):
        students, teachers = sorted(student_V)[::-1] + [0.0] * 13, sorted(teacher_V)[::-1]
        expected += sum(abs(p - q) for p, q in zip(students[:k], teachers[:k], strict=True))
        expected += max(0.0, sum(students[k:]) - sum(teachers[k:]))
    assert uld_loss(student_SV, teacher_topk(teacher_SV, k)).item() == pytest.approx(expected)


@given(SEEDS, st.integers(1, 13))
def test_gold_of_the_teachers_likeliest_is_that_of_a_loop(seed: int, k: int) -> None:
    student_SV, teacher_SV = _logits(seed, 11), _logits(seed + 1, 13)
    partner, expected = {other: one for one, other in PAIRS.items()}, 0.0
    for student_V, teacher_V in zip(student_SV.softmax(-1).tolist(), teacher_SV.softmax(-1).tolist(), strict=True):
        named = sorted(range(13), key=lambda id_: -teacher_V[id_])[:k]
        pairs = [(student_V[partner[id_]], teacher_V[id_]) for id_ in named if id_ in partner]
        expected += sum(q * math.log(q / p) - q + p for p, q in pairs)
        teachers = [teacher_V[id_] for id_ in named if id_ not in partner]
        students = sorted((p for id_, p in enumerate(student_V) if id_ not in PAIRS), reverse=True)
        expected += sum(abs(p - q) for p, q in zip_longest(students[: len(teachers)], teachers, fillvalue=0.0))
        expected += max(0.0, sum(students[len(teachers) :]) - (1 - sum(teacher_V[id_] for id_ in named)))
    assert gold_loss(student_SV, teacher_topk(teacher_SV, k), STUDENT_IDS_W).item() == pytest.approx(expected)


@given(SEEDS, st.floats(0.1, 10), st.sampled_from([(11, 13), (13, 13), (16, 13)]))
def test_the_more_of_the_teacher_is_known_the_higher_the_losses(seed: int, scale: float, sizes: tuple[int, int]) -> None:
    """Up to those over its whole vocabulary, of which they are lower bounds."""
    student_SV, teacher_SV = _logits(seed, sizes[0], scale), _logits(seed + 1, sizes[1], scale)
    for name in ("uld", "gold"):
        values = [LOSSES[name](student_SV, teacher_topk(teacher_SV, k)).item() for k in range(1, 14)]
        assert values[0] >= -1e-12
        assert all(less <= more + 1e-9 for less, more in pairwise(values))


def test_what_lies_beyond_the_known_tokens_counts() -> None:
    """A teacher sure of one token it shares with nobody, and a student that spreads: by hand."""
    student_SV = torch.tensor([[0.4, 0.3, 0.3]]).log()
    teacher = TopK(torch.tensor([[0.9]]).log(), torch.tensor([[1]]))
    assert uld_loss(student_SV, teacher).item() == pytest.approx(0.5 + (0.6 - 0.1))
    assert gold_loss(student_SV, teacher, torch.tensor([-1, -1])).item() == pytest.approx(1.0)
    kl = 0.9 * math.log(0.9 / 0.4) - 0.9 + 0.4
    assert gold_loss(student_SV, teacher, torch.tensor([-1, 0])).item() == pytest.approx(kl + (0.6 - 0.1))
    assert gold_loss(student_SV, teacher, torch.tensor([1, 0])).item() == pytest.approx(kl + (0.3 - 0.1))


@pytest.mark.parametrize("name", ["uld", "gold"])
def test_losses_are_finite_where_probabilities_vanish_in_float32(name: str) -> None:
    student_SV = torch.tensor([[0.0, -500.0, -500.0] + [-5000.0] * 8], requires_grad=True)
    teacher_SV = torch.tensor([[-5000.0] * 10 + [0.0, -300.0, -65504.0]])
    for k in (1, 5, 13):
        (gradient_SV,) = torch.autograd.grad(loss := LOSSES[name](student_SV, teacher_topk(teacher_SV, k)), student_SV)
        assert 0 <= loss.item() < float("inf")
        assert gradient_SV.isfinite().all()


@given(SEEDS)
def test_a_text_under_one_tokenizer_has_the_plain_losses_of_its_tokens(seed: int) -> None:
    """From the text on: alignment, spans and shared tokens change nothing, but for special tokens, which no text becomes."""
    tokenizer, text = small_tokenizer("byte-level"), "the answer 日本語 🙂"
    spelling, end = read_spelling("m", tokenizer), tokenizer.eos_token_id
    ids_M = torch.tensor([*encode_completion(tokenizer, text), end])
    spans = align(spelling.spell(ids_M.tolist()), spelling.spell(ids_M.tolist()), text, ended=True)
    lengths_S = torch.tensor([len(span.student) for span in spans])
    student_MV, teacher_MV = _logits(seed, 400, positions=len(ids_M)), _logits(seed + 1, 400, positions=len(ids_M))
    for logits_MV in (student_MV, teacher_MV):
        logits_MV[:, sorted(spelling.special_ids - {end})] = -50.0
    students, teachers = (Categorical(logits=logits_MV) for logits_MV in (student_MV, teacher_MV))
    starts_S = span_starts(lengths_S)
    gold = gold_loss(student_MV[starts_S], _whole(teacher_MV[starts_S]), partners(spelling, spelling, end, end))
    torch.testing.assert_close(gold, kl_divergence(teachers, students).sum(), atol=1e-5, rtol=0)
    span_kl = span_kl_loss(*(span_logprobs(side.log_prob(ids_M), lengths_S) for side in (students, teachers)))
    bernoullis = [Bernoulli(side.log_prob(ids_M).exp()) for side in (teachers, students)]
    torch.testing.assert_close(span_kl, kl_divergence(*bernoullis).sum(), atol=1e-5, rtol=0)


@given(SEEDS, st.floats(0.1, 10))
def test_gold_with_one_tokenizer_is_plain_kl(seed: int, scale: float) -> None:
    """Whatever order either vocabulary has."""
    student_SV, teacher_SV = _logits(seed, 11, scale), _logits(seed + 1, 11, scale)
    order_V = torch.randperm(11, generator=torch.Generator().manual_seed(seed))
    expected = kl_divergence(Categorical(logits=teacher_SV), Categorical(logits=student_SV)).sum()
    loss = gold_loss(student_SV[:, order_V], _whole(teacher_SV), order_V.argsort())
    torch.testing.assert_close(loss, expected, atol=1e-9, rtol=1e-9)


@given(SEEDS)
def test_gold_with_nothing_shared_is_uld(seed: int) -> None:
    student_SV, teacher_SV = _logits(seed, 11), _logits(seed + 1, 13)
    nothing_W = torch.full((13,), -1)
    for k in (1, 4, 13):
        teacher = teacher_topk(teacher_SV, k)
        torch.testing.assert_close(gold_loss(student_SV, teacher, nothing_W), uld_loss(student_SV, teacher))


@given(SEEDS, st.floats(0.1, 50))
def test_gold_is_positive_unless_the_models_agree(seed: int, scale: float) -> None:
    student_SV, teacher_SV = _logits(seed, 11, scale), _logits(seed + 1, 13, scale)
    assert gold_loss(student_SV, _whole(teacher_SV), STUDENT_IDS_W).item() > 0
    agreeing_SV = torch.full((5, 13), -torch.inf).double()
    agreeing_SV[:, [*PAIRS.values()]] = student_SV[:, [*PAIRS]]
    agreeing_SV[:, [1, 2, 5, 6, 7, 8, 10]] = student_SV[:, [10, 9, 7, 6, 4, 3, 0]]
    for k in range(1, 14):
        assert gold_loss(student_SV, teacher_topk(agreeing_SV, k), STUDENT_IDS_W).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_gradients_by_finite_differences_reach_the_student_alone(name: str) -> None:
    student_SV, teacher_SV = _logits(5, 11).requires_grad_(), _logits(6, 13).requires_grad_()
    assert torch.autograd.gradcheck(lambda logits_SV: ON_LOGITS[name](logits_SV, teacher_SV.detach()), student_SV)
    ON_LOGITS[name](student_SV, teacher_SV).backward()
    assert student_SV.grad is not None
    assert student_SV.grad.abs().sum() > 0
    assert teacher_SV.grad is None


@pytest.mark.parametrize("name", ON_LOGITS)
def test_descent_on_the_loss_brings_the_student_to_the_teacher(name: str) -> None:
    student_SV, teacher_SV = _logits(7, 11).requires_grad_(), _logits(8, 13)
    before = ON_LOGITS[name](student_SV, teacher_SV).item()
    optimizer = torch.optim.Adam([student_SV], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss = ON_LOGITS[name](student_SV, teacher_SV)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1 * before


def test_a_student_that_is_too_sure_is_told_so() -> None:
    """Where its complement has no logarithm in float32 any more, too."""
    for logprob in (-1e-4, -1e-7, 0.0):
        student_S = torch.tensor([logprob], requires_grad=True)
        span_kl_loss(student_S, torch.tensor([0.5]).log()).backward()
        assert student_S.grad is not None
        assert student_S.grad.item() > 1e3
