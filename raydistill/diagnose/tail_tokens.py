"""Which tokens carry the KL beyond k, and what a loss over the teacher's top k sees of the KL.

Axes: P, positions; V, the vocabulary; K, the sizes k that are asked for; C, classes of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raydistill.diagnose.tail_noise import terms


class TailParts(NamedTuple):
    """What `tail_parts` finds, in nats."""

    renormalised_PK: Tensor
    """KL(teacher || student) after each was renormalised over the teacher's top k."""
    by_class_PKC: Tensor
    """What the tokens of each class contribute beyond k."""
    by_token_KV: Tensor
    """What each token contributes beyond k, summed over P; 0 where it is in the top k."""


def tail_parts(teacher_PV: Tensor, student_PV: Tensor, ks: Sequence[int], class_VC: Tensor) -> TailParts:
    """KL(teacher || student) beyond the teacher's top k, token by token, from normalised log-probabilities in double.

    With P and Q the probabilities that teacher and student give to all tokens outside the top k, such a token contributes

        p log(p / q) - p log(P / Q) - p + q P / Q,

    P times a term of the KL of the two tails. The first two parts alone sum to KL - KL@k, but for single tokens they may be negative;
    the last two sum to 0 and make each contribution non-negative, 0 just where p / P = q / Q. `class_VC` has a 1 for each token's class.
    Raises ValueError unless the ks ascend from 1 to below V.
    """
    vocabulary = teacher_PV.shape[-1]
    if list(ks) != sorted(set(ks)) or not all(1 <= k < vocabulary for k in ks):
        raise ValueError(f"the ks must ascend and be from 1 to below the {vocabulary} of the vocabulary, not {tuple(ks)}")
    order_PM = teacher_PV.topk(max(ks)).indices
    renormalised_PK = torch.stack([_renormalised(teacher_PV, student_PV, order_PM[:, :k]) for k in ks], -1)
    tails = [terms(teacher_PV, student_PV), teacher_PV.exp(), student_PV.exp()]
    by_class, by_token = [], []
    for start, k in zip((0, *ks), ks, strict=False):
        for tail_PV in tails:
            tail_PV.scatter_(-1, order_PM[:, start:k], 0.0)
        weights_P3 = _weights(tails[1].sum(-1), tails[2].sum(-1))
        by_class.append(sum(w_P[:, None] * (tail_PV @ class_VC) for w_P, tail_PV in zip(weights_P3.T, tails, strict=True)))
        by_token.append(sum(w_P @ tail_PV for w_P, tail_PV in zip(weights_P3.T, tails, strict=True)))
    return TailParts(renormalised_PK, torch.stack(by_class, 1), torch.stack(by_token))


def _weights(teacher_P: Tensor, student_P: Tensor) -> Tensor:
    """Of p log(p / q), p and q in a contribution, (P, 3); a teacher without a tail has none."""
    over_P = torch.where(teacher_P > 0, teacher_P / student_P, 1.0)
    return torch.stack([torch.ones_like(over_P), -over_P.log() - 1, torch.where(teacher_P > 0, over_P, 0.0)], -1)


def _renormalised(teacher_PV: Tensor, student_PV: Tensor, top_Pk: Tensor) -> Tensor:
    teacher, student = (own.gather(-1, top_Pk).log_softmax(-1) for own in (teacher_PV, student_PV))
    return terms(teacher, student).sum(-1).clamp_min(0)


class TailSums:
    """Sums what lies beyond each k, token by token, over all positions that it is shown: (K, V), however many they are."""

    def __init__(self, ks: Sequence[int], class_V: Tensor, classes: int) -> None:
        """`class_V` is each token's class, from 0 to below `classes`; `ks` as in `tail_parts`."""
        self.ks = tuple(ks)
        self.classes = classes
        # Laid out by class: a product with so few columns is several times quicker then.
        self._class_VC = torch.nn.functional.one_hot(class_V.long(), classes).double().T.contiguous().T
        self._by_token_KV = torch.zeros(len(self.ks), len(class_V), dtype=torch.float64, device=class_V.device)

    def add(self, teacher_PV: Tensor, student_PV: Tensor) -> tuple[Tensor, Tensor]:
        """`renormalised_PK` and `by_class_PKC` of these positions."""
        parts = tail_parts(teacher_PV, student_PV, self.ks, self._class_VC)
        self._by_token_KV += parts.by_token_KV
        return parts.renormalised_PK, parts.by_class_PKC

    def heaviest(self, count: int) -> tuple[tuple[tuple[int, float], ...], ...]:
        """For each k the `count` tokens that contribute most, as (id, nats), the heaviest first."""
        sums, ids = self._by_token_KV.topk(min(count, self._by_token_KV.shape[1]))
        return tuple(tuple(zip(*row, strict=True)) for row in zip(ids.tolist(), sums.tolist(), strict=True))
