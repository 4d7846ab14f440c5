"""What a student minimises, as sums over completion tokens: the caller divides by the token count of the whole batch.

Sums, because a batch may go through the model in pieces, and a mean of means would weigh their tokens differently.
"""

from __future__ import annotations

import torch
from torch.nn.functional import cross_entropy


def sft_loss(logits_MV: torch.Tensor, token_ids_M: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the M tokens that followed, in nats, summed: SFT, and SeqKD (Kim & Rush 2016) on a teacher's samples."""
    return cross_entropy(logits_MV, token_ids_M, reduction="sum")


def reverse_kl_loss(student_logits_MV: torch.Tensor, teacher_logits_MV: torch.Tensor) -> torch.Tensor:
    """KL(student || teacher) over the vocabulary at each of M positions, in nats, summed; exact, not estimated from the sampled token.

    The loss of GKD at lambda = 1 (Agarwal et al. 2024, eq. 4 with D = reverse KL). No gradient reaches the teacher.
    """
    student_MV = student_logits_MV.log_softmax(-1)
    teacher_MV = teacher_logits_MV.log_softmax(-1)
    # The gradient through the logarithms, the sum of p * d log p, is 0; computed, it would be rounding noise, which Adam
    # blows up to full steps where the two models agree.
    return (student_MV.exp() * (student_MV - teacher_MV).detach()).sum()
