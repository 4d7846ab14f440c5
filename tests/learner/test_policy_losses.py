"""The loss functions against torch.distributions, brute force and by properties."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, kl_divergence

from raydistill.learner import losses

LOGITS = st.lists(st.floats(-4, 4), min_size=5, max_size=5)


def _log_softmax(logits: list[float]) -> torch.Tensor:
    return torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1)


@given(LOGITS, LOGITS)
def test_exact_kl_is_that_of_torch_distributions(p: list[float], q: list[float]) -> None:
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    expected = kl_divergence(Categorical(logits=log_p), Categorical(logits=log_q))
    torch.testing.assert_close(losses.kl_exact(log_p[None], log_q[None]), expected[None], rtol=1e-9, atol=1e-12)


@given(LOGITS, LOGITS)
def test_k3_is_never_negative_and_its_mean_is_the_exact_kl(p: list[float], q: list[float]) -> None:
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    k3_V = losses.kl_k3(log_p, log_q)
    assert (k3_V >= 0).all()
    torch.testing.assert_close((log_p.exp() * k3_V).sum(), losses.kl_exact(log_p, log_q), rtol=1e-9, atol=1e-12)


@given(LOGITS)
def test_every_kl_of_a_distribution_from_itself_is_zero(p: list[float]) -> None:
    log_p = _log_softmax(p)
    assert losses.kl_k3(log_p, log_p).abs().max() == 0
    assert losses.kl_exact(log_p, log_p) == 0


def test_the_mean_gradient_of_k3_is_that_of_the_other_direction() -> None:
    """The derivation in the docstring of `kl_k3`, on a categorical, where all tokens can be summed over."""
    logits = torch.tensor([1.2, -0.3, 0.4, -1.0], dtype=torch.float64, requires_grad=True)
    q = Categorical(logits=torch.tensor([-0.5, 0.8, 0.1, 0.6], dtype=torch.float64))

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    log_p = torch.log_softmax(logits, -1)
    of_k3 = gradient((log_p.exp().detach() * losses.kl_k3(log_p, q.logits)).sum())
    p = Categorical(logits=logits)
    torch.testing.assert_close(of_k3, gradient(kl_divergence(q, p)), rtol=1e-9, atol=1e-12)
    assert (of_k3 - gradient(kl_divergence(p, q))).abs().max() > 0.1


def _brute_force(new: float, old: float, rollout: float, advantage: float) -> float:
    import math

    ratio = math.exp(new - old)
    bounded = min(max(ratio, 1 - 0.2), 1 + 0.3)
    return -min(math.exp(old - rollout), 2.0) * min(ratio * advantage, bounded * advantage)


def test_policy_losses_token_by_token() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old, rollout, advantages = torch.randn(4, 200, generator=generator, dtype=torch.float64)
    got = losses.policy_losses(new, old, rollout, advantages, clip_low=0.2, clip_high=0.3, importance_cap=2.0)
    expected = [_brute_force(*map(float, token)) for token in zip(new, old, rollout, advantages, strict=True)]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64))


def test_gradient_vanishes_just_where_a_token_counts_as_clipped() -> None:
    generator = torch.Generator().manual_seed(1)
    new, old, rollout, advantages = torch.randn(4, 200, generator=generator, dtype=torch.float64)
    new.requires_grad_()
    losses.policy_losses(new, old, rollout, advantages, clip_low=0.2, clip_high=0.3, importance_cap=2.0).sum().backward()
    clipped = losses.is_clipped(new.detach(), old, advantages, clip_low=0.2, clip_high=0.3)
    assert 0.1 < clipped.double().mean() < 0.9
    assert torch.equal(new.grad == 0, clipped)


def test_importance_weights_are_capped_and_carry_no_gradient() -> None:
    old = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    weights = losses.importance_weights(old, torch.zeros(3), cap=2.0)
    torch.testing.assert_close(weights, torch.tensor([1.0, 2.0, 0.36787944]))
    assert not weights.requires_grad
    assert losses.is_truncated(old, torch.zeros(3), cap=2.0).tolist() == [False, True, False]
