"""The policy gradient and its KL anchor, as pure functions of tensors.

Axes: K, the completion tokens of a micro-batch one after another, without prompts or padding, so that no mask is needed;
V, the vocabulary. Log-probabilities are in nats. Every function returns one value a token; a loss component is the sum of
its values over all tokens divided by that component's token count over all processes and micro-batches.
"""

from __future__ import annotations

import torch
from torch import Tensor


def importance_weights(old_K: Tensor, rollout_K: Tensor, cap: float) -> Tensor:
    """min(pi_old / pi_rollout, cap) of each token, (K,), without gradient.

    The engine that sampled a token and the learner disagree a little on its probability. Weighting by their ratio makes
    the gradient that of the learner's own policy; the cap bounds its variance (truncated importance sampling,
    Ionides 2008, https://doi.org/10.1198/106186008X320456).
    """
    return torch.exp(old_K - rollout_K).clamp(max=cap).detach()


def policy_losses(
    logprobs_K: Tensor,
    old_K: Tensor,
    rollout_K: Tensor,
    advantages_K: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    importance_cap: float,
) -> Tensor:
    """Minus the clipped surrogate w * min(r A, clip(r, 1 - clip_low, 1 + clip_high) A) of each token, (K,).

    r = pi / pi_old with pi_old from before the step (PPO, arXiv 1707.06347, with the decoupled bounds of DAPO,
    arXiv 2503.14476), w from `importance_weights`.
    """
    ratio_K = torch.exp(logprobs_K - old_K)
    clipped_K = ratio_K.clamp(1 - clip_low, 1 + clip_high)
    surrogate_K = torch.minimum(ratio_K * advantages_K, clipped_K * advantages_K)
    return -importance_weights(old_K, rollout_K, importance_cap) * surrogate_K


def is_clipped(logprobs_K: Tensor, old_K: Tensor, advantages_K: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Which tokens the clipping leaves without gradient, (K,) of bool."""
    ratio_K = torch.exp(logprobs_K - old_K)
    return ((ratio_K > 1 + clip_high) & (advantages_K > 0)) | ((ratio_K < 1 - clip_low) & (advantages_K < 0))


def is_truncated(old_K: Tensor, rollout_K: Tensor, cap: float) -> Tensor:
    """Which tokens have an importance weight at the cap, (K,) of bool."""
    return torch.exp(old_K - rollout_K) > cap


def kl_k3(logprobs_p_K: Tensor, logprobs_q_K: Tensor) -> Tensor:
    """The k3 estimate exp(d) - 1 - d, d = log q - log p, of KL(p || q) from tokens that p sampled; (K,), never negative.

    Unbiased: E_p[q / p] = 1, so E_p[k3] = -E_p[d] = KL(p || q) (Schulman, http://joschu.net/blog/kl-approx.html).

    Its plain gradient in the parameters of p is (1 - q / p) grad log p: differentiating the value at a token that is
    held fixed leaves out that the distribution of tokens moves too. As E_p[grad log p] = 0, its mean under p is
    -sum_y q(y) grad log p(y), which is the gradient of KL(q || p), the *other* direction. Both directions agree to second
    order about p = q. Away from it KL(q || p) pulls p to cover all of q, and an outlier's gradient is unbounded in q / p.
    """
    log_ratio_K = logprobs_q_K - logprobs_p_K
    return torch.expm1(log_ratio_K) - log_ratio_K


def kl_exact(logprobs_p_KV: Tensor, logprobs_q_KV: Tensor) -> Tensor:
    """KL(p || q) of the next-token distribution at each position, (K,), from normalised log-probabilities (K, V)."""
    return (logprobs_p_KV.exp() * (logprobs_p_KV - logprobs_q_KV)).sum(-1)
