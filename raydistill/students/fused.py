"""Losses from hidden states, in chunks of positions: the logits of all positions are never held at once.

The extra memory is that of a few (chunk, V) tensors and of the gradients, whatever M is. Each chunk's gradient is computed right after
its loss, in the forward pass, so that no logits are kept or computed twice.

Axes: M, positions; V, vocabulary; D, the student's width; E, the teacher's; m, the positions of a chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from raydistill.students.divergence import require_jsd_beta, require_temperature
from raydistill.students.losses import TopKLoss, jsd_loss, sft_loss, teacher_topk, topk_jsd_loss

CHUNK = 128
"""Positions. The memory grows with it; with fewer, the products with a wide head take longer (benchmarks/fused_loss.py)."""

LogitsLoss = Callable[[Tensor, slice], Tensor]
"""A sum over positions, from the student's logits (m, V) and which of the M they are."""


def fused_sft_loss(hidden_MD: Tensor, head_VD: Tensor, token_ids_M: Tensor, chunk: int = CHUNK) -> Tensor:
    """`sft_loss` of the logits hidden @ head.T. Gradients reach both. Raises ValueError if chunk < 1."""
    return _ChunkedLoss.apply(hidden_MD, head_VD, lambda logits_mV, rows: sft_loss(logits_mV, token_ids_M[rows]), chunk)


def fused_jsd_loss(
    student_hidden_MD: Tensor,
    student_head_VD: Tensor,
    teacher_hidden_ME: Tensor,
    teacher_head_VE: Tensor,
    jsd_beta: float,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> Tensor:
    """`jsd_loss` of the logits hidden @ head.T. Gradients reach the student's hidden states and head.

    `chunk` positions are computed at a time, which changes nothing but rounding. Raises ValueError as `jsd_loss` does, and if chunk < 1.
    On a GPU, in float32 and where liger-kernel is installed, `liger_jsd_loss` computes it.
    """
    if student_hidden_MD.is_cuda and student_hidden_MD.dtype == torch.float32 and find_spec("liger_kernel"):
        return liger_jsd_loss(student_hidden_MD, student_head_VD, teacher_hidden_ME, teacher_head_VE, jsd_beta, temperature, chunk)

    def loss(student_mV: Tensor, rows: slice) -> Tensor:
        return jsd_loss(student_mV, _logits(teacher_hidden_ME[rows], teacher_head_VE), jsd_beta, temperature)

    return _ChunkedLoss.apply(student_hidden_MD, student_head_VD, loss, chunk)


def liger_jsd_loss(
    student_hidden_MD: Tensor,
    student_head_VD: Tensor,
    teacher_hidden_ME: Tensor,
    teacher_head_VE: Tensor,
    jsd_beta: float,
    temperature: float = 1.0,
    chunk: int = CHUNK,
    compiled: bool = True,
) -> Tensor:
    """`fused_jsd_loss` by liger-kernel, whose beta and temperature mean the same; in float32, in which it sums.

    Where both models agree its gradient is rounding noise, not 0. `compiled` fuses what is done to a chunk.
    """
    from liger_kernel.chunked_loss.jsd_loss import LigerFusedLinearJSDLoss

    require_jsd_beta(jsd_beta)
    require_temperature(temperature)
    _require_chunk(chunk)
    mean = LigerFusedLinearJSDLoss(
        weight_hard_loss=0.0, weight_soft_loss=1.0, beta=jsd_beta, temperature=temperature, compiled=compiled, chunk_size=chunk
    )
    # It wants labels, of which it looks only at whether a position is to be left out: none is.
    labels_M = torch.zeros(len(student_hidden_MD), dtype=torch.long, device=student_hidden_MD.device)
    return len(labels_M) * mean(student_hidden_MD, student_head_VD, teacher_hidden_ME, teacher_head_VE, labels_M)


def fused_topk_jsd_loss(
    student_hidden_MD: Tensor,
    student_head_VD: Tensor,
    teacher_hidden_ME: Tensor,
    teacher_head_VE: Tensor,
    k: int,
    jsd_beta: float,
    temperature: float = 1.0,
    chunk: int = CHUNK,
) -> TopKLoss:
    """`topk_jsd_loss` of the logits hidden @ head.T, with the teacher's top k. Gradients and errors as in `fused_jsd_loss`."""
    mass = torch.zeros((), dtype=teacher_hidden_ME.dtype, device=teacher_hidden_ME.device)

    def loss(student_mV: Tensor, rows: slice) -> Tensor:
        told = teacher_topk(_logits(teacher_hidden_ME[rows], teacher_head_VE), k, temperature)
        result = topk_jsd_loss(student_mV, told, jsd_beta, temperature)
        mass.add_(result.mass)
        return result.loss

    return TopKLoss(_ChunkedLoss.apply(student_hidden_MD, student_head_VD, loss, chunk), mass)


def _require_chunk(chunk: int) -> None:
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, not {chunk}")


@torch.no_grad()
def _logits(hidden_mD: Tensor, head_VD: Tensor) -> Tensor:
    return hidden_mD @ head_VD.T


class _ChunkedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MD: Tensor, head_VD: Tensor, loss: LogitsLoss, chunk: int) -> Tensor:
        _require_chunk(chunk)
        hidden_gradient_MD = torch.empty_like(hidden_MD) if ctx.needs_input_grad[0] else None
        head_gradient_VD = torch.zeros_like(head_VD) if ctx.needs_input_grad[1] else None
        total = torch.zeros((), dtype=hidden_MD.dtype, device=hidden_MD.device)
        for start in range(0, len(hidden_MD), chunk):
            rows = slice(start, start + chunk)
            value, gradient_mV = _loss_and_gradient(loss, _logits(hidden_MD[rows], head_VD), rows)
            total += value
            if hidden_gradient_MD is not None:
                hidden_gradient_MD[rows] = gradient_mV @ head_VD
            if head_gradient_VD is not None:
                head_gradient_VD.addmm_(gradient_mV.T, hidden_MD[rows])
        ctx.save_for_backward(hidden_gradient_MD, head_gradient_VD)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gradients = (None if gradient is None else upstream * gradient for gradient in ctx.saved_tensors)
        return (*gradients, None, None)


def _loss_and_gradient(loss: LogitsLoss, student_mV: Tensor, rows: slice) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        value = loss(student_mV.requires_grad_(), rows)
    return value.detach(), torch.autograd.grad(value, student_mV)[0]
