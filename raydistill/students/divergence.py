"""The divergence between two distributions, with its gradient written out.

Axes: M, positions; C, the outcomes of a position: the vocabulary, or the buckets it was merged into.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

_LARGEST_LOG_RATIO = 80.0
"""Its exp is finite in float32, and a larger ratio of two probabilities gives the same sums."""


@torch.no_grad()
def generalised_jsd(student_MC: Tensor, teacher_MC: Tensor, jsd_beta: float) -> tuple[Tensor, Tensor]:
    """The divergence of two sets of log-probabilities, in nats, summed over M; and its gradient in `student_MC`, (M, C).

    0 < jsd_beta < 1: jsd_beta KL(teacher || m) + (1 - jsd_beta) KL(student || m), m = jsd_beta teacher + (1 - jsd_beta) student
    (Agarwal et al. 2024, arXiv 2306.13649, eq. 1). At 0 KL(teacher || student) and at 1 KL(student || teacher), the limits of the
    former over jsd_beta and over 1 - jsd_beta. Raises ValueError outside [0, 1].

    Each gradient is that of the formula up to a multiple of the student's probabilities, which has no effect behind a softmax
    and is chosen so that the gradient is exactly 0 where both agree. There the formula itself would give rounding noise,
    which Adam blows up to full steps. Tensors (M, C) are few, and reused in place: they are what bounds M.
    """
    require_jsd_beta(jsd_beta)
    if jsd_beta == 0:
        teacher_p_MC = teacher_MC.exp()
        return (teacher_MC - student_MC).mul_(teacher_p_MC).sum(), student_MC.exp() - teacher_p_MC
    if jsd_beta == 1:
        gradient_MC = (student_MC - teacher_MC).mul_(student_MC.exp())
        return gradient_MC.sum(), gradient_MC
    over_student_MC, over_teacher_MC = _log_mixture_over(student_MC, teacher_MC, jsd_beta)
    gradient_MC = student_MC.exp().mul_(over_student_MC).mul_(jsd_beta - 1)
    return gradient_MC.sum() - jsd_beta * teacher_MC.exp().mul_(over_teacher_MC).sum(), gradient_MC


def _log_mixture_over(student_MC: Tensor, teacher_MC: Tensor, jsd_beta: float) -> tuple[Tensor, Tensor]:
    """log(m / student) and log(m / teacher), (M, C): 0 where both agree; the smaller one without cancellation."""
    log_ratio_MC = (teacher_MC - student_MC).clamp_(-_LARGEST_LOG_RATIO, _LARGEST_LOG_RATIO)
    if jsd_beta <= 0.5:
        over_student_MC = torch.expm1(log_ratio_MC).mul_(jsd_beta).log1p_()
        return over_student_MC, over_student_MC - log_ratio_MC
    over_teacher_MC = log_ratio_MC.neg().expm1_().mul_(1 - jsd_beta).log1p_()
    return over_teacher_MC + log_ratio_MC, over_teacher_MC


def log_probabilities(logits_MV: Tensor, temperature: float) -> Tensor:
    """log softmax(logits / temperature), (M, V). Raises ValueError unless the temperature is positive and finite."""
    require_temperature(temperature)
    return (logits_MV if temperature == 1 else logits_MV / temperature).log_softmax(-1)


def require_jsd_beta(jsd_beta: float) -> None:
    if not 0 <= jsd_beta <= 1:
        raise ValueError(f"jsd_beta must be from 0 to 1, not {jsd_beta}")


def require_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, not {temperature}")


class _GivenGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, _x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def with_gradient(x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    """The scalar `value`, as a function of `x` with the gradient given, of the shape of `x`."""
    return _GivenGradient.apply(x, value, gradient)
