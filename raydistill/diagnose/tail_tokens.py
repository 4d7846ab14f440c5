"""Which tokens carry the KL beyond k, and what a loss over the teacher's top k sees of the KL.

Axes: P, positions; V, the vocabulary; K, the sizes k that are asked for; M, tokens ranked; C, classes of tokens; 2, directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from raydistill.diagnose.tail_noise import SideBySide, terms

Heaviest = tuple[tuple[tuple[int, float], ...], ...]
"""For each k the tokens that contribute most beyond it: ids and nats, the heaviest first."""


class TailParts(NamedTuple):
    """What `tail_parts` finds, in nats."""

    renormalised_PK: Tensor
    """KL(teacher || student) after each was renormalised over the teacher's top k."""
    by_class_P2KC: Tensor
    """What the tokens of each class contribute beyond k to KL(teacher || student), and to KL(student || teacher)."""
    by_token_2KV: Tensor
    """What each token contributes beyond k, summed over P; 0 where it is in the top k."""


def tail_parts(both: SideBySide, ks: Sequence[int], class_VC: Tensor) -> TailParts:
    """KL(teacher || student), and KL(student || teacher), beyond the teacher's top k, token by token.

    With P and Q the probabilities that teacher and student give to all tokens outside the top k, such a token contributes

        p log(p / q) - p log(P / Q) - p + q P / Q,

    P times a term of the KL of the two tails. The first two parts alone sum to KL - KL@k, but for single tokens they may be negative;
    the last two sum to 0 and make each contribution non-negative, 0 just where p / P = q / Q. In the other direction teacher and student
    change places, but for the top k. `class_VC` has a 1 for each token's class. Raises ValueError unless the ks are from 1 to M.
    """
    positions, most = both.order_PM.shape
    if not all(1 <= k <= most for k in ks):
        raise ValueError(f"every k must be from 1 to the {most} that are ranked, not {tuple(ks)}")
    renormalised_PK = both.teacher_PV.new_empty(positions, len(ks))
    by_class_P2KC = both.teacher_PV.new_empty(positions, 2, len(ks), class_VC.shape[1])
    by_token_2KV = both.teacher_PV.new_empty(2, len(ks), class_VC.shape[0])
    part_PV = torch.empty_like(both.teacher_PV)  # written over: a new one each time takes longer than what is computed
    ways = ((both.teacher_PV.exp(), both.student_PV, both.forward_PV, 1), (both.student_PV.exp(), both.teacher_PV, both.reverse_PV, -1))
    for place, k in enumerate(ks):
        renormalised_PK[:, place] = _renormalised(both, k)
        # A side without a tail leaves no number: the model without one contributes nothing, and the other's KL is infinite anyway.
        log_ratio_P1 = (both.teacher.beyond_PM[:, k, None] - both.student.beyond_PM[:, k, None]).nan_to_num()
        for way, (first_PV, second_PV, terms_PV, sign) in enumerate(ways):
            log_P1 = sign * log_ratio_P1
            torch.add(second_PV, log_P1, out=part_PV).exp_().addcmul_(first_PV, log_P1 + 1, value=-1).add_(terms_PV)
            part_PV.scatter_(-1, both.order_PM[:, :k], 0.0)
            by_class_P2KC[:, way, place] = part_PV @ class_VC
            by_token_2KV[way, place] = part_PV.sum(0)
    return TailParts(renormalised_PK, by_class_P2KC, by_token_2KV)


def _renormalised(both: SideBySide, k: int) -> Tensor:
    teacher, student = (own.top_PM[:, :k].log_softmax(-1) for own in (both.teacher, both.student))
    return terms(teacher, student).sum(-1).clamp_min(0)


class TailSums:
    """Sums what lies beyond each k, token by token, over all positions that it is shown: (2, K, V), however many they are."""

    def __init__(self, ks: Sequence[int], class_V: Tensor, classes: int) -> None:
        """`class_V` is each token's class, from 0 to below `classes`; `ks` as in `tail_parts`."""
        self.ks = tuple(ks)
        self.classes = classes
        # Laid out by class: a product with so few columns is several times quicker then.
        self._class_VC = torch.nn.functional.one_hot(class_V.long(), classes).double().T.contiguous().T
        self._by_token_2KV = torch.zeros(2, len(self.ks), len(class_V), dtype=torch.float64, device=class_V.device)

    def add(self, both: SideBySide) -> tuple[Tensor, Tensor]:
        """`renormalised_PK` and `by_class_P2KC` of these positions."""
        parts = tail_parts(both, self.ks, self._class_VC)
        self._by_token_2KV += parts.by_token_2KV
        return parts.renormalised_PK, parts.by_class_P2KC

    def heaviest(self, count: int) -> tuple[Heaviest, Heaviest]:
        """For KL(teacher || student) and KL(student || teacher)."""
        sums, ids = self._by_token_2KV.topk(min(count, self._by_token_2KV.shape[-1]))
        forward, reverse = (
            tuple(tuple(zip(*row, strict=True)) for row in zip(*way, strict=True)) for way in zip(ids.tolist(), sums.tolist(), strict=True)
        )
        return forward, reverse
