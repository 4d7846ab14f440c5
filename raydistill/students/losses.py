"""What a student minimises, as sums over completion tokens: the caller divides by the token count of the whole batch.

Sums, because a batch may go through the model in pieces, and a mean of means would weigh their tokens differently.

Axes: M, positions; V, vocabulary; K, the teacher's likeliest tokens. Logits are finite, in float32 or float64. Log-probabilities
and losses are in nats. No gradient reaches a teacher. A loss at a temperature is that of the softened distributions; it is not
multiplied by the square of the temperature.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from raydistill.students.divergence import generalised_jsd, log_probabilities, with_gradient

_CPU_ELEMENTS, _GPU_ELEMENTS = 2**18, 2**26
"""Logits of the positions that a loss looks at together."""


def sft_loss(logits_MV: Tensor, token_ids_M: Tensor) -> Tensor:
    """Cross-entropy of the M tokens that followed, in nats, summed: SFT, and SeqKD (Kim & Rush 2016) on a teacher's samples."""
    return cross_entropy(logits_MV, token_ids_M, reduction="sum")


def jsd_loss(student_logits_MV: Tensor, teacher_logits_MV: Tensor, jsd_beta: float, temperature: float = 1.0) -> Tensor:
    """Generalised Jensen-Shannon divergence over the vocabulary at each of M positions, summed (see `generalised_jsd`).

    KL(teacher || student) at jsd_beta = 0, KL(student || teacher) at 1, as in GKD (Agarwal et al. 2024) and TRL. Raises ValueError
    if jsd_beta is not in [0, 1] or the temperature is not positive and finite.
    """
    return _ByRows.apply(student_logits_MV, teacher_logits_MV, jsd_beta, temperature)


class _ByRows(torch.autograd.Function):
    """The gradient is computed with the loss, a few positions at a time: what is in between stays in the processor's cache."""

    @staticmethod
    def forward(ctx: Any, student_logits_MV: Tensor, teacher_logits_MV: Tensor, jsd_beta: float, temperature: float) -> Tensor:
        elements = _CPU_ELEMENTS if student_logits_MV.device.type == "cpu" else _GPU_ELEMENTS
        rows = max(1, elements // student_logits_MV.shape[1])
        gradient_MV = torch.empty_like(student_logits_MV)
        total = student_logits_MV.new_zeros(())
        pairs = zip(student_logits_MV.split(rows), teacher_logits_MV.split(rows), gradient_MV.split(rows), strict=True)
        for student_mV, teacher_mV, part_mV in pairs:
            logprobs_mV = log_probabilities(student_mV, temperature)
            value, slope_mV = generalised_jsd(logprobs_mV, log_probabilities(teacher_mV, temperature), jsd_beta)
            total += value
            # Through the softmax: slope - probability * the slopes' sum.
            torch.addcmul(slope_mV, logprobs_mV.exp_(), slope_mV.sum(-1, keepdim=True), value=-1, out=part_mV)
        ctx.save_for_backward(gradient_MV if temperature == 1 else gradient_MV.div_(temperature))
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_MV,) = ctx.saved_tensors
        return upstream * gradient_MV, None, None, None


class TopK(NamedTuple):
    """The K likeliest tokens of a teacher at each of M positions."""

    logprobs_MK: Tensor
    """Normalised over the whole vocabulary, not over the K tokens; of any floating-point type."""
    ids_MK: Tensor
    """Of type int64."""


def teacher_topk(teacher_logits_MV: Tensor, k: int, temperature: float = 1.0) -> TopK:
    """The teacher's k likeliest tokens. Raises ValueError unless 1 <= k <= V and the temperature is positive and finite."""
    if not 1 <= k <= teacher_logits_MV.shape[1]:
        raise ValueError(f"k must be from 1 to the vocabulary's {teacher_logits_MV.shape[1]}, not {k}")
    logprobs_MV = log_probabilities(teacher_logits_MV, temperature)
    return TopK(*logprobs_MV.topk(k))


class TopKLoss(NamedTuple):
    """Both are summed over M."""

    loss: Tensor
    mass: Tensor
    """The teacher's probability of its K tokens, which tells what the loss can see of it; without gradient."""


def topk_jsd_loss(student_logits_MV: Tensor, teacher: TopK, jsd_beta: float, temperature: float = 1.0) -> TopKLoss:
    """`jsd_loss` after all tokens outside the teacher's top K are merged into one bucket, the tail.

    Never above `jsd_loss`, as merging loses information, and equal to it at K = V. `teacher` comes from `teacher_topk` or a file; its
    log-probabilities must have been computed at the same temperature, which here applies to the student. The tail's
    probability is 1 - that of the top K, at least the rounding error of a 1. Raises ValueError as `jsd_loss` does, and if K = 0.
    """
    if teacher.ids_MK.shape[1] < 1:
        raise ValueError("k must be at least 1, not 0")
    student_MV = log_probabilities(student_logits_MV, temperature)
    # Both tails are computed alike, although the student's could be had exactly: where both models agree they must be equal.
    student_MC = _with_tail(student_MV.detach().gather(-1, teacher.ids_MK))
    teacher_MK = teacher.logprobs_MK.detach().to(student_MV.dtype)
    value, gradient_MC = generalised_jsd(student_MC, _with_tail(teacher_MK), jsd_beta)
    # A token of the tail has its share of the bucket's gradient.
    tail_M1 = gradient_MC[:, -1:] / student_MC[:, -1:].exp()
    gradient_MV = (student_MV.detach().exp() * tail_M1).scatter(-1, teacher.ids_MK, gradient_MC[:, :-1])
    return TopKLoss(with_gradient(student_MV, value, gradient_MV), teacher_MK.exp().sum())


def _with_tail(logprobs_MK: Tensor) -> Tensor:
    """Log-probabilities of the K tokens and, last, of all others together, (M, K + 1)."""
    tail_M1 = 1 - logprobs_MK.exp().sum(-1, keepdim=True)
    return torch.cat([logprobs_MK, tail_M1.clamp(min=torch.finfo(tail_M1.dtype).eps).log()], dim=-1)


def sampled_reverse_kl_loss(student_logits_MV: Tensor, teacher_logprobs_M: Tensor, token_ids_M: Tensor) -> Tensor:
    """The estimate log student(y) - log teacher(y), summed, of KL(student || teacher) from tokens y that the student sampled.

    Its gradient is the policy gradient with minus the log-ratio for a reward, (log student(y) - log teacher(y)) grad log student(y),
    whose mean over y is the gradient of `jsd_loss` at 1. It estimates, from one token, what MiniLLM (Gu et al. 2023,
    arXiv 2306.08543, sec. 2.2) calls the single-step part and sums over the vocabulary; the rewards of later tokens, the length
    normalisation and the sampling from a mixture with the teacher are left out. Needs the teacher's log-probability of the one
    token only, where `jsd_loss`, with less variance, needs the vocabulary's.
    """
    student_M = student_logits_MV.log_softmax(-1).gather(-1, token_ids_M[:, None])[:, 0]
    log_ratio_M = (student_M - teacher_logprobs_M).detach()
    return with_gradient(student_M, log_ratio_M.sum(), log_ratio_M)
