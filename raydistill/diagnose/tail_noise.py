"""Tail noise: how much of the KL between teacher and student lies in tokens that the teacher finds unlikely.

Axes: P, positions; V, the vocabulary; K, the sizes k that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

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


def kl_at_k(teacher_PV: Tensor, student_PV: Tensor, ks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """KL@k of KL(teacher || student) and of KL(student || teacher), in nats, (P, K) each, from normalised log-probabilities in double.

    KL@k is the KL after all tokens outside the teacher's top k are merged into one bucket, whichever the direction (docs/diagnose.md).
    Merging can only lose information: it is non-negative, grows with k, and is the KL itself at V. What rounding leaves below 0 is 0.
    Raises ValueError unless every k is from 1 to V.
    """
    vocabulary = teacher_PV.shape[-1]
    if not all(1 <= k <= vocabulary for k in ks):
        raise ValueError(f"every k must be from 1 to the {vocabulary} of the vocabulary, not {tuple(ks)}")
    most = max((k for k in ks if k < vocabulary), default=0)
    order_PM = teacher_PV.topk(most).indices
    pairs = [(_top(own_PV, order_PM), own_PV) for own_PV in (teacher_PV, student_PV)]
    (teacher, teacher_PV), (student, student_PV) = pairs
    forward = [_merged(teacher, student, k) if k < vocabulary else terms(teacher_PV, student_PV).sum(-1) for k in ks]
    reverse = [_merged(student, teacher, k) if k < vocabulary else terms(student_PV, teacher_PV).sum(-1) for k in ks]
    return torch.stack(forward, -1).clamp_min(0), torch.stack(reverse, -1).clamp_min(0)


def _top(own_PV: Tensor, order_PM: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the teacher's top M, (P, M), and of all that follows its top 0 to M, (P, M + 1).

    The masses are summed from the smallest on: 1 - sum would lose a tail to rounding.
    """
    top_PM = own_PV.gather(-1, order_PM)
    rest_P1 = own_PV.scatter(-1, order_PM, -torch.inf).logsumexp(-1, keepdim=True)
    return top_PM, torch.cat([rest_P1, top_PM.flip(-1)], -1).logcumsumexp(-1).flip(-1)


def _merged(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], k: int) -> Tensor:
    (first_PM, first_tails), (second_PM, second_tails) = first, second
    return terms(first_PM[:, :k], second_PM[:, :k]).sum(-1) + terms(first_tails[:, k], second_tails[:, k])


def terms(first: Tensor, second: Tensor) -> Tensor:
    """p log(p / q), 0 where p is 0."""
    return torch.where(first == -torch.inf, 0.0, first.exp() * (first - second))
