"""What a student minimises against a teacher with another tokenizer, as sums over aligned spans; see `align`.

S counts spans, M tokens; each side has its own M and V. The spans of a batch tile its completion tokens, so that the number of
tokens in each, `lengths_S`, says where they are. Sums, in nats where logarithms are compared; no gradient reaches the teacher.

What is compared is what either model says of the same bytes after the same bytes. It is not quite the same question: a model also
knows from where its own tokenizer would never have cut (Phan et al. 2024, "tokenization bias").
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

_CERTAIN = -1e-6
"""A log-probability this near to 0 is 0 up to rounding in float32, and its complement has no logarithm."""


def span_logprobs(logprobs_M: torch.Tensor, lengths_S: torch.Tensor) -> torch.Tensor:
    """Log-probability (S,) of each span's tokens, one after the other, by the chain rule. Raises RuntimeError if M is not their number."""
    span_M = torch.repeat_interleave(lengths_S, output_size=len(logprobs_M))
    return logprobs_M.new_zeros(len(lengths_S)).index_add(0, span_M, logprobs_M)


def span_starts(lengths_S: torch.Tensor) -> torch.Tensor:
    """Places (S,) of each span's first token among the M: both models stand after the same bytes there."""
    return lengths_S.cumsum(0) - lengths_S


def span_kl_loss(student_logprobs_S: torch.Tensor, teacher_logprobs_S: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) of whether the text goes on with the span's bytes or not, summed.

    Approximate likelihood matching (Minixhofer et al. 2025, with the KL and temperature 1). Of all ways to go on, only the one in
    the text has a probability on both sides; merging the others makes this a lower bound of the whole KL.
    """
    # The value is bounded, not the gradient: a student that is too sure is what there is to mend.
    student_S = student_logprobs_S + (student_logprobs_S.clamp(max=_CERTAIN) - student_logprobs_S).detach()
    teacher_S = teacher_logprobs_S.detach().clamp(max=_CERTAIN)
    went_on_S = teacher_S.exp() * (teacher_S - student_S)
    did_not_S = -teacher_S.expm1() * (_log_complement(teacher_S) - _log_complement(student_S))
    return (went_on_S + did_not_S).sum()


def uld_loss(student_logits_SV: torch.Tensor, teacher_logits_SV: torch.Tensor) -> torch.Tensor:
    """Universal logit distillation (Boizard et al. 2024, without its cross-entropy): L1 of the sorted probabilities, summed.

    It compares how sure the models are, not of what.
    """
    return _sorted_distance(student_logits_SV.softmax(-1), teacher_logits_SV.detach().softmax(-1))


def gold_loss(
    student_logits_SV: torch.Tensor, teacher_logits_SV: torch.Tensor, student_shared_K: torch.Tensor, teacher_shared_K: torch.Tensor
) -> torch.Tensor:
    """KL(teacher || student) over the K tokens that both vocabularies share, see `shared_ids`, and `uld_loss` of the others, summed.

    The hybrid of GOLD (Patino et al. 2025), unweighted. The shared probabilities need not sum to 1, so their KL is the one for
    measures, with the difference of the sums (Csiszar 1975): never negative, 0 where they agree, and plain KL if all are shared.
    """
    student_SV = student_logits_SV.log_softmax(-1)
    teacher_SV = teacher_logits_SV.detach().log_softmax(-1)
    student_SK, teacher_SK = student_SV[:, student_shared_K], teacher_SV[:, teacher_shared_K]
    kl = (teacher_SK.exp() * (teacher_SK - student_SK) - teacher_SK.exp() + student_SK.exp()).sum()
    return kl + _sorted_distance(_others(student_SV, student_shared_K).exp(), _others(teacher_SV, teacher_shared_K).exp())


def _sorted_distance(student_SV: torch.Tensor, teacher_SV: torch.Tensor) -> torch.Tensor:
    """L1 distance of the largest, the second largest, ... probability; the smaller vocabulary has probabilities of 0 for the rest."""
    size = max(student_SV.shape[1], teacher_SV.shape[1])
    student_sorted_SV, teacher_sorted_SV = (
        pad(probs_SV.sort(-1, descending=True).values, (0, size - probs_SV.shape[1])) for probs_SV in (student_SV, teacher_SV)
    )
    return (student_sorted_SV - teacher_sorted_SV).abs().sum()


def _others(values_SV: torch.Tensor, shared_K: torch.Tensor) -> torch.Tensor:
    is_other_V = torch.ones(values_SV.shape[1], dtype=torch.bool, device=values_SV.device)
    is_other_V[shared_K] = False
    return values_SV[:, is_other_V]


def _log_complement(logprobs: torch.Tensor) -> torch.Tensor:
    """log(1 - p) from log p < 0, through 1 - p itself, which expm1 gives to full precision."""
    return (-logprobs.expm1()).log()
