"""Losses against torch.distributions, TRL, brute-force loops and analytic gradients."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, kl_divergence

from raydistill.students.divergence import generalised_jsd
from raydistill.students.losses import TopK, jsd_loss, sampled_reverse_kl_loss, sft_loss, teacher_topk, topk_jsd_loss

BETAS = [0.0, 0.3, 0.5, 0.8, 1.0]
betas = st.sampled_from(BETAS)
seeds = st.integers(0, 1000)


@pytest.fixture(autouse=True)
def _quiet_trl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")


def _logits(seed: int, scale: float = 3.0, positions: int = 5, vocabulary: int = 11) -> Tensor:
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


def _gradient(loss: Tensor, logits_MV: Tensor) -> Tensor:
    return torch.autograd.grad(loss, logits_MV)[0]


def _assert_same(ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]) -> None:
    """Value and gradient, to 1e-5."""
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@given(seeds)
def test_sft_is_minus_the_log_probability_of_the_tokens(seed: int) -> None:
    logits_MV = _logits(seed)
    token_ids_M = torch.randint(11, (5,), generator=torch.Generator().manual_seed(seed))
    expected = -sum(
        math.log(math.exp(row[id_]) / sum(map(math.exp, row))) for row, id_ in zip(logits_MV.tolist(), token_ids_M, strict=True)
    )
    assert sft_loss(logits_MV, token_ids_M).item() == pytest.approx(expected, rel=1e-5)


def test_sft_gradient_is_probability_minus_one_hot() -> None:
    logits_MV = _logits(1).requires_grad_()
    token_ids_M = torch.tensor([0, 3, 3, 10, 2])
    sft_loss(logits_MV, token_ids_M).backward()
    expected_MV = logits_MV.detach().softmax(-1)
    expected_MV[range(5), token_ids_M] -= 1
    torch.testing.assert_close(logits_MV.grad, expected_MV, atol=1e-6, rtol=0)


@given(seeds, st.floats(0.1, 20))
def test_the_ends_are_the_kls_of_torch_distributions(seed: int, scale: float) -> None:
    student_MV, teacher_MV = _logits(seed, scale).double(), _logits(seed + 1, scale).double()
    student, teacher = Categorical(logits=student_MV), Categorical(logits=teacher_MV)
    torch.testing.assert_close(jsd_loss(student_MV, teacher_MV, 1.0), kl_divergence(student, teacher).sum(), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(jsd_loss(student_MV, teacher_MV, 1), kl_divergence(student, teacher).sum(), atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(jsd_loss(student_MV, teacher_MV, 0), kl_divergence(teacher, student).sum(), atol=1e-8, rtol=1e-8)


@given(seeds, st.floats(0.001, 0.999), st.floats(0.1, 20))
def test_jsd_is_its_definition(seed: int, beta: float, scale: float) -> None:
    student_MV, teacher_MV = _logits(seed, scale).double().softmax(-1), _logits(seed + 1, scale).double().softmax(-1)
    mixture_MV = beta * teacher_MV + (1 - beta) * student_MV
    expected = (
        beta * (teacher_MV * (teacher_MV / mixture_MV).log()).sum() + (1 - beta) * (student_MV * (student_MV / mixture_MV).log()).sum()
    )
    torch.testing.assert_close(jsd_loss(student_MV.log(), teacher_MV.log(), beta), expected, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_jsd_is_trls(beta: float, temperature: float) -> None:
    from trl.experimental.gkd import GKDTrainer

    student_MV, teacher_MV = _logits(1).requires_grad_(), _logits(2)
    loss = jsd_loss(student_MV, teacher_MV, beta, temperature)
    theirs = GKDTrainer.generalized_jsd_loss(student_MV[None], teacher_MV[None], beta=beta, temperature=temperature, reduction="sum")
    _assert_same((loss, _gradient(loss, student_MV)), (theirs, _gradient(theirs, student_MV)))


def test_reverse_kl_is_up_to_rounding_what_finished_runs_rest_on() -> None:
    logits_MV, teacher_MV = _logits(1).requires_grad_(), _logits(2).log_softmax(-1)
    student_MV = logits_MV.log_softmax(-1)
    before = (student_MV.exp() * (student_MV - teacher_MV).detach()).sum() / 7
    now = jsd_loss(logits_MV, _logits(2), 1.0) / 7
    torch.testing.assert_close(now, before, atol=0, rtol=1e-6)
    torch.testing.assert_close(_gradient(now, logits_MV), _gradient(before, logits_MV), atol=5e-8, rtol=1e-6)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_jsd_is_the_same_however_many_positions_are_looked_at_together(beta: float, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_MV, teacher_MV = _logits(1).double().requires_grad_(), _logits(2).double()
    student_MV = logits_MV.div(1.5).log_softmax(-1)
    value, slope_MV = generalised_jsd(student_MV, teacher_MV.div(1.5).log_softmax(-1), beta)
    (expected_MV,) = torch.autograd.grad(student_MV, logits_MV, slope_MV)
    monkeypatch.setattr("raydistill.students.losses._CPU_ELEMENTS", rows * logits_MV.shape[1])
    loss = jsd_loss(logits_MV, teacher_MV, beta, 1.5)
    torch.testing.assert_close((loss.detach(), _gradient(loss, logits_MV)), (value, expected_MV), atol=1e-12, rtol=1e-12)


def test_jsd_of_no_positions_is_0() -> None:
    logits_MV = _logits(1)[:0].requires_grad_()
    loss = jsd_loss(logits_MV, _logits(2)[:0], 0.5)
    loss.backward()
    assert loss.item() == 0


@given(seeds, st.sampled_from([1e-5, 1e-8, 1e-12]))
def test_jsd_over_its_distance_from_an_end_tends_to_the_kl_there(seed: int, small: float) -> None:
    student_MV, teacher_MV = _logits(seed, 1).double(), _logits(seed + 1, 1).double()
    near_1 = 1 - small
    at_0, at_1 = jsd_loss(student_MV, teacher_MV, small) / small, jsd_loss(student_MV, teacher_MV, near_1) / (1 - near_1)
    torch.testing.assert_close(at_0, jsd_loss(student_MV, teacher_MV, 0), atol=0, rtol=1e3 * small + 1e-12)
    torch.testing.assert_close(at_1, jsd_loss(student_MV, teacher_MV, 1), atol=0, rtol=1e3 * small + 1e-12)


@given(betas)
def test_distributions_without_overlap_give_finite_losses_and_gradients(beta: float) -> None:
    student_MV, teacher_MV = torch.tensor([[300.0, 0.0, 0.0]], requires_grad=True), torch.tensor([[0.0, 300.0, 0.0]])
    expected = 300 if beta in (0, 1) else -beta * math.log(beta) - (1 - beta) * math.log(1 - beta)
    for loss in (jsd_loss(student_MV, teacher_MV, beta), topk_jsd_loss(student_MV, teacher_topk(teacher_MV, 2), beta).loss):
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        assert _gradient(loss, student_MV).isfinite().all()


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("k", [1, 4, 11])
def test_gradients_by_finite_differences(beta: float, k: int) -> None:
    student_MV, teacher_MV = _logits(1, 1).double().requires_grad_(), _logits(2, 1).double()
    teacher = teacher_topk(teacher_MV, k, 1.5)
    assert torch.autograd.gradcheck(lambda student_MV: jsd_loss(student_MV, teacher_MV, beta, 1.5), student_MV)
    assert torch.autograd.gradcheck(lambda student_MV: topk_jsd_loss(student_MV, teacher, beta, 1.5).loss, student_MV)


@pytest.mark.parametrize("beta", BETAS)
def test_no_gradient_reaches_the_teacher(beta: float) -> None:
    student_MV, teacher_MV = _logits(1).requires_grad_(), _logits(2).requires_grad_()
    ids_MK = torch.arange(3).expand(5, 3)
    stored = TopK(teacher_MV.log_softmax(-1).gather(-1, ids_MK), ids_MK)
    for loss in (
        jsd_loss(student_MV, teacher_MV, 1.0),
        jsd_loss(student_MV, teacher_MV, beta),
        topk_jsd_loss(student_MV, teacher_topk(teacher_MV, 3), beta).loss,
        topk_jsd_loss(student_MV, stored, beta).loss,
        sampled_reverse_kl_loss(student_MV, stored.logprobs_MK[:, 0], ids_MK[:, 0]),
    ):
        student_MV.grad = None
        loss.backward()
        assert student_MV.grad is not None
        assert student_MV.grad.abs().max() > 1e-3
        assert teacher_MV.grad is None
    assert not topk_jsd_loss(student_MV, stored, beta).mass.requires_grad


@given(seeds, betas, st.floats(-50, 50), st.integers(1, 11))
def test_losses_are_zero_for_equals_up_to_a_shift_and_positive_otherwise(seed: int, beta: float, shift: float, k: int) -> None:
    logits_MV, other_MV = _logits(seed).double(), _logits(seed + 1).double()
    student_MV = (logits_MV + shift).requires_grad_()
    for loss in (jsd_loss(student_MV, logits_MV, beta), topk_jsd_loss(student_MV, teacher_topk(logits_MV, k), beta).loss):
        assert loss.item() == pytest.approx(0, abs=1e-9)
        assert _gradient(loss, student_MV).abs().max() < 1e-12
    assert jsd_loss(student_MV, other_MV, beta).item() > 1e-3
    assert topk_jsd_loss(student_MV, teacher_topk(other_MV, k), beta).loss.item() > 1e-6


@given(seeds, betas, st.integers(1, 1000))
def test_gradients_are_exactly_zero_at_equality(seed: int, beta: float, k: int) -> None:
    """TRL's are rounding noise there, which Adam would follow as if it meant something."""
    from trl.experimental.gkd import GKDTrainer

    logits_MV = _logits(seed, vocabulary=1000)
    teacher_MV = logits_MV.clone()
    logits_MV.requires_grad_()
    ids_M = logits_MV.argmax(-1)
    teacher_logprobs_M = teacher_MV.log_softmax(-1)[range(5), ids_M]
    for loss in (
        jsd_loss(logits_MV, teacher_MV, 1.0),
        jsd_loss(logits_MV, teacher_MV, beta),
        topk_jsd_loss(logits_MV, teacher_topk(teacher_MV, k), beta).loss,
        sampled_reverse_kl_loss(logits_MV, teacher_logprobs_M, ids_M),
    ):
        assert loss.item() == 0
        assert _gradient(loss, logits_MV).count_nonzero() == 0
    theirs = GKDTrainer.generalized_jsd_loss(logits_MV[None], teacher_MV[None], beta=beta, reduction="sum")
    assert _gradient(theirs, logits_MV).count_nonzero() > 0


def _merged(p_V: list[float], kept: set[int]) -> list[float]:
    return [p_V[id_] for id_ in sorted(kept)] + [sum(p for id_, p in enumerate(p_V) if id_ not in kept)]


@given(seeds, st.integers(1, 10))
def test_topk_forward_kl_and_mass_by_a_loop(seed: int, k: int) -> None:
    student_MV, teacher_MV = _logits(seed).double(), _logits(seed + 1).double()
    expected, mass = 0.0, 0.0
    for student_V, teacher_V in zip(student_MV.softmax(-1).tolist(), teacher_MV.softmax(-1).tolist(), strict=True):
        kept = set(sorted(range(11), key=lambda id_: -teacher_V[id_])[:k])
        merged = zip(_merged(student_V, kept), _merged(teacher_V, kept), strict=True)
        expected += sum(teacher * math.log(teacher / student) for student, teacher in merged)
        mass += sum(teacher_V[id_] for id_ in kept)
    result = topk_jsd_loss(student_MV, teacher_topk(teacher_MV, k), 0)
    assert result.loss.item() == pytest.approx(expected, rel=1e-8)
    assert result.mass.item() == pytest.approx(mass, rel=1e-12)


@pytest.mark.parametrize("beta", BETAS)
def test_topk_takes_a_teacher_stored_in_half_precision(beta: float) -> None:
    student_MV, teacher = _logits(1).requires_grad_(), teacher_topk(_logits(2), 4)
    exact = topk_jsd_loss(student_MV, teacher, beta)
    stored = topk_jsd_loss(student_MV, TopK(teacher.logprobs_MK.half(), teacher.ids_MK), beta)
    torch.testing.assert_close(stored.loss, exact.loss, atol=0, rtol=0.02)
    torch.testing.assert_close(stored.mass, exact.mass, atol=0, rtol=1e-3)
    assert _gradient(stored.loss, student_MV).dtype == torch.float32


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("k", [1, 4, 9])
def test_topk_is_trls_with_a_tail_bucket(beta: float, k: int) -> None:
    from trl.experimental.server_distillation.server_distillation_trainer import _add_tail_bucket, _jsd_divergence

    student_MV, teacher_MV = _logits(1).double().requires_grad_(), _logits(2).double()
    logprobs_MK, ids_MK = teacher_MV.log_softmax(-1).topk(k)
    valid_MK = torch.ones_like(ids_MK, dtype=torch.bool)
    student_MC, valid_MC = _add_tail_bucket(student_MV.log_softmax(-1).gather(-1, ids_MK), valid_MK)
    theirs = _jsd_divergence(student_MC, _add_tail_bucket(logprobs_MK, valid_MK)[0], beta, valid_MC).sum()
    ours = topk_jsd_loss(student_MV, TopK(logprobs_MK, ids_MK), beta).loss
    _assert_same((ours, _gradient(ours, student_MV)), (theirs, _gradient(theirs, student_MV)))


@given(seeds, betas, st.sampled_from([0.5, 1.0, 2.0]))
def test_topk_grows_with_k_up_to_the_whole_divergence(seed: int, beta: float, temperature: float) -> None:
    student_MV, teacher_MV = _logits(seed, 1).double().requires_grad_(), _logits(seed + 1, 1).double()
    losses = [topk_jsd_loss(student_MV, teacher_topk(teacher_MV, k, temperature), beta, temperature).loss for k in range(1, 12)]
    assert all(bigger > smaller - 1e-9 for smaller, bigger in pairwise(losses))
    assert losses[-1] > losses[0] + 1e-6
    exact = jsd_loss(student_MV, teacher_MV, beta, temperature)
    torch.testing.assert_close(losses[-1], exact, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(_gradient(losses[-1], student_MV), _gradient(exact, student_MV), atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("beta", BETAS)
def test_topk_in_float32_is_that_in_float64_where_the_student_all_but_leaves_out_the_tail(beta: float) -> None:
    student_MV = torch.tensor([[12.0, 2.0, 1.0, 0.0, -1.0, 1.5]]).requires_grad_()
    exact_MV = student_MV.detach().double().requires_grad_()
    teacher_MV = torch.tensor([[3.0, 1.0, 2.0, 0.0, 1.0, 0.5]])
    loss = topk_jsd_loss(student_MV, teacher_topk(teacher_MV, 1), beta).loss
    exact = topk_jsd_loss(exact_MV, teacher_topk(teacher_MV.double(), 1), beta).loss
    torch.testing.assert_close(loss.double(), exact, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(_gradient(loss, student_MV).double(), _gradient(exact, exact_MV), atol=1e-3, rtol=1e-3)


def test_topk_pulls_a_student_back_that_gives_the_tail_no_probability_at_all() -> None:
    student_MV = torch.tensor([[20.0, 0.0, 0.0]]).requires_grad_()
    teacher = TopK(torch.tensor([[math.log(0.9)]]), torch.tensor([[0]]))
    gradient_V = _gradient(topk_jsd_loss(student_MV, teacher, 0).loss, student_MV)[0]
    assert gradient_V[1] == gradient_V[2] < -1e-4


@given(seeds)
def test_sampled_reverse_kl_is_in_expectation_the_exact_one(seed: int) -> None:
    """The mean over every token, weighed by the student's probability of it; at one position."""
    student_1V, teacher_1V = _logits(seed, positions=1).double().requires_grad_(), _logits(seed + 1, positions=1).double()
    value, gradient_1V = torch.zeros(()).double(), torch.zeros(1, 11).double()
    for id_, probability in enumerate(student_1V.detach().softmax(-1)[0]):
        loss = sampled_reverse_kl_loss(student_1V, teacher_1V.log_softmax(-1)[:, id_], torch.tensor([id_]))
        value += probability * loss.detach()
        gradient_1V += probability * _gradient(loss, student_1V)
    exact = jsd_loss(student_1V, teacher_1V, 1.0)
    torch.testing.assert_close(value, exact.detach(), atol=1e-12, rtol=1e-10)
    torch.testing.assert_close(gradient_1V, _gradient(exact, student_1V), atol=1e-12, rtol=1e-10)


def test_sampled_reverse_kl_has_trls_gradient() -> None:
    """TRL's value is another one: it has the gradient, not the estimate, of the divergence."""
    from trl.experimental.sdpo.loss_utils import compute_sampled_token_self_distillation_loss

    student_MV, teacher_MV, ids_M = _logits(1).requires_grad_(), _logits(2), torch.tensor([0, 3, 3, 10, 2])
    ours = sampled_reverse_kl_loss(student_MV, teacher_MV.log_softmax(-1)[range(5), ids_M], ids_M)
    theirs = compute_sampled_token_self_distillation_loss(student_MV[None], teacher_MV[None], ids_M[None], distillation_alpha=1.0)
    torch.testing.assert_close(_gradient(ours, student_MV), _gradient(theirs.sum(), student_MV), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("beta", [-0.1, 1.1, math.nan, math.inf])
def test_a_beta_outside_0_to_1_is_refused(beta: float) -> None:
    for loss in (lambda: jsd_loss(_logits(1), _logits(2), beta), lambda: topk_jsd_loss(_logits(1), teacher_topk(_logits(2), 3), beta)):
        with pytest.raises(ValueError, match=r"^jsd_beta must be from 0 to 1, not "):
            loss()


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_a_temperature_that_is_not_positive_is_refused(temperature: float) -> None:
    teacher = teacher_topk(_logits(2), 3)
    for loss in (
        lambda: jsd_loss(_logits(1), _logits(2), 1.0, temperature),
        lambda: topk_jsd_loss(_logits(1), teacher, 0.5, temperature),
        lambda: teacher_topk(_logits(2), 3, temperature),
    ):
        with pytest.raises(ValueError, match=r"^temperature must be positive and finite, not "):
            loss()


@pytest.mark.parametrize("k", [0, -1, 12])
def test_a_k_outside_the_vocabulary_is_refused(k: int) -> None:
    with pytest.raises(ValueError, match=rf"^k must be from 1 to the vocabulary's 11, not {k}$"):
        teacher_topk(_logits(1), k)


def test_a_stored_teacher_without_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^k must be at least 1, not 0$"):
        topk_jsd_loss(_logits(1), TopK(torch.empty(5, 0), torch.empty(5, 0, dtype=torch.long)), 0.5)
