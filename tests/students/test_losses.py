"""Losses against torch.distributions, TRL and analytic gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from raydistill.students.losses import reverse_kl_loss, sft_loss


def _logits(seed: int, scale: float = 3.0, positions: int = 5, vocabulary: int = 11) -> torch.Tensor:
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed))


@given(st.integers(0, 1000))
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


@given(st.integers(0, 1000), st.floats(0.1, 20))
def test_reverse_kl_is_that_of_torch_distributions(seed: int, scale: float) -> None:
    student_MV, teacher_MV = _logits(seed, scale).double(), _logits(seed + 1, scale).double()
    expected = kl_divergence(Categorical(logits=student_MV), Categorical(logits=teacher_MV)).sum()
    torch.testing.assert_close(reverse_kl_loss(student_MV, teacher_MV), expected, atol=1e-8, rtol=1e-8)


def test_reverse_kl_is_trls_generalised_jsd_at_beta_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """In TRL beta = 1 is KL(student || teacher) and beta = 0 is KL(teacher || student)."""
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.gkd import GKDTrainer

    ours, theirs, other = (_logits(1).requires_grad_() for _ in range(3))
    teacher_MV = _logits(2)
    loss = reverse_kl_loss(ours, teacher_MV)
    reference = GKDTrainer.generalized_jsd_loss(theirs[None], teacher_MV[None], beta=1.0, reduction="sum")
    forward = GKDTrainer.generalized_jsd_loss(other[None], teacher_MV[None], beta=0.0, reduction="sum")
    loss.backward()
    reference.backward()
    torch.testing.assert_close(loss, reference, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-5, rtol=0)
    assert abs((forward - loss).item()) > 0.1


def test_reverse_kl_gradient_by_finite_differences() -> None:
    teacher_MV = _logits(4).double()
    assert torch.autograd.gradcheck(lambda student_MV: reverse_kl_loss(student_MV, teacher_MV), _logits(3).double().requires_grad_())


def test_no_gradient_reaches_the_teacher() -> None:
    student_MV, teacher_MV = _logits(1).requires_grad_(), _logits(2).requires_grad_()
    reverse_kl_loss(student_MV, teacher_MV).backward()
    assert student_MV.grad is not None
    assert teacher_MV.grad is None


@given(st.integers(0, 1000), st.floats(-50, 50))
def test_reverse_kl_is_zero_for_equals_up_to_a_shift_and_positive_otherwise(seed: int, shift: float) -> None:
    logits_MV = _logits(seed).double()
    assert reverse_kl_loss(logits_MV, logits_MV + shift).item() == pytest.approx(0, abs=1e-9)
    assert reverse_kl_loss(logits_MV, _logits(seed + 1).double()).item() > 0
