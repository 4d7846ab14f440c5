"""The gradient that a distillation would begin with, without a step of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from raydistill.students.batches import pad
from raydistill.students.distil import Objective, TracePair, divergence_pieces

_FORWARD_KL = Objective(jsd_beta=0.0, on_policy=0.0)


def gradient_norms(student: Any, teacher: Any, batches: Sequence[Sequence[TracePair]], micro_batch_tokens: int) -> list[float]:
    """For each batch of completions the length of the gradient, by all of the student's parameters, of its KL(teacher || student) a token.

    In nats a token by a unit of the weights' length. Both models are in evaluation mode and share the vocabulary. A pass takes
    `micro_batch_tokens` tokens, padding included, or one completion; logits that would be large are made a few positions at a time.
    The student is left as it was.
    """
    student.requires_grad_(True)
    try:
        return [_norm(student, teacher, batch, micro_batch_tokens) for batch in batches]
    finally:
        student.requires_grad_(False)


def _norm(student: Any, teacher: Any, batch: Sequence[TracePair], micro_batch_tokens: int) -> float:
    own, teachers = pad([pair.student for pair in batch]), pad([pair.teacher for pair in batch])
    try:
        for piece in divergence_pieces(student, own, teacher, teachers, _FORWARD_KL, micro_batch_tokens):
            piece.backward()
        squares = (p.grad.double().square().sum().item() for p in student.parameters() if p.grad is not None)
        return math.sqrt(math.fsum(squares))
    finally:
        student.zero_grad(set_to_none=True)
