"""Tail noise: how much of the KL between teacher and student lies in tokens that the teacher finds unlikely.

Axes: P, positions; V, the vocabulary; K, the sizes k that are asked for; M, the largest of them below V.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

LADDER = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Sizes at which KL@k is measured, and the whole vocabulary."""
SHARES = (10, 50, 100)
"""Sizes beyond which the share of the KL is reported."""
NO_KL = 1e-6
"""Nats a token; below it a share of the KL is rounding over rounding."""


def sizes(vocabulary: int) -> tuple[int, ...]:
    """The sizes of a curve for a vocabulary of V tokens, in ascending order; the last is V, where KL@k is the KL."""
    return (*(k for k in LADDER if k < vocabulary), vocabulary)


def tail_sizes(vocabulary: int) -> tuple[int, ...]:
    """Those of SHARES that leave a tail."""
    return tuple(k for k in SHARES if k < vocabulary)


@dataclass(frozen=True)
class SideBySide:
    """Teacher and student at the same positions, and the teacher's likeliest tokens: one order for all that has a top k, also in a tie."""

    teacher_PV: Tensor
    student_PV: Tensor
    order_PM: Tensor
    """The teacher's likeliest M tokens, the likeliest first."""
    forward_PV: Tensor
    """Each token's term of KL(teacher || student)."""
    reverse_PV: Tensor
    """Each token's term of KL(student || teacher)."""
    teacher: Top
    student: Top


class Top(NamedTuple):
    """Log-probabilities that one model gives."""

    top_PM: Tensor
    """To the teacher's likeliest M tokens."""
    beyond_PM: Tensor
    """To all that follow the teacher's likeliest 0 to M, (P, M + 1)."""


def side_by_side(teacher_PV: Tensor, student_PV: Tensor, ks: Sequence[int]) -> SideBySide:
    """From normalised log-probabilities in double, ranked as far as KL@k asks for at `ks`. Raises ValueError unless each is from 1 to V."""
    vocabulary = teacher_PV.shape[-1]
    if not all(1 <= k <= vocabulary for k in ks):
        raise ValueError(f"every k must be from 1 to the {vocabulary} of the vocabulary, not {tuple(ks)}")
    order_PM = teacher_PV.topk(max((k for k in ks if k < vocabulary), default=0)).indices
    kl_terms = terms(teacher_PV, student_PV), terms(student_PV, teacher_PV)
    return SideBySide(teacher_PV, student_PV, order_PM, *kl_terms, _top(teacher_PV, order_PM), _top(student_PV, order_PM))


def kl_at_k(both: SideBySide, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """KL@k of KL(teacher || student) and of KL(student || teacher), in nats, (P, K) each; `ks` as in `side_by_side`.

    KL@k is the KL after all tokens outside the teacher's top k are merged into one bucket, whichever the direction (docs/diagnose.md).
    Merging can only lose information: it is non-negative, grows with k, and is the KL itself at V. What rounding leaves below 0 is 0.
    """
    vocabulary = both.teacher_PV.shape[-1]
    forward = [_merged(both.teacher, both.student, k) if k < vocabulary else both.forward_PV.sum(-1) for k in ks]
    reverse = [_merged(both.student, both.teacher, k) if k < vocabulary else both.reverse_PV.sum(-1) for k in ks]
    return torch.stack(forward, -1).clamp_min(0), torch.stack(reverse, -1).clamp_min(0)


def _top(own_PV: Tensor, order_PM: Tensor) -> Top:
    """The masses are summed from the smallest on: 1 - sum would lose a tail to rounding."""
    top_PM = own_PV.gather(-1, order_PM)
    rest_P1 = own_PV.scatter(-1, order_PM, -torch.inf).logsumexp(-1, keepdim=True)
    return Top(top_PM, torch.cat([rest_P1, top_PM.flip(-1)], -1).logcumsumexp(-1).flip(-1))


def _merged(first: Top, second: Top, k: int) -> Tensor:
    return terms(first.top_PM[:, :k], second.top_PM[:, :k]).sum(-1) + terms(first.beyond_PM[:, k], second.beyond_PM[:, k])


def terms(first: Tensor, second: Tensor) -> Tensor:
    """p log(p / q), 0 where p is 0."""
    return (first - second).mul_(first.exp()).masked_fill_(first == -torch.inf, 0.0)  # in place: `where` takes three times as long
