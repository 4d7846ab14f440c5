"""What a student minimises against a teacher with another tokenizer, as sums over aligned spans; see `align`.

S counts spans, M tokens, K the teacher's likeliest tokens; V is the student's vocabulary, W the teacher's. The spans of a batch tile
its completion tokens, so that the number of tokens in each, `lengths_S`, says where they are. Sums, in nats where logarithms are
compared; no gradient reaches the teacher.

What is compared is what either model says of the same bytes after the same bytes. It is not quite the same question: a model also
knows from where its own tokenizer would never have cut (Phan et al. 2024, "tokenization bias"). `gold_loss` suffers most from that:
a token that both have can be the likeliest for one model and impossible for the other, which has a longer one in its place.
"""

from __future__ import annotations

import torch
from torch.nn.functional import pad

from raydistill.students.losses import TopK

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


def uld_loss(student_logits_SV: torch.Tensor, teacher: TopK) -> torch.Tensor:
    """Universal logit distillation (Boizard et al. 2024, without its cross-entropy): L1 of the sorted probabilities, summed.

    It compares how sure the models are, not of what. `teacher` has its S rows at temperature 1. With K below the teacher's vocabulary
    it is a lower bound of the loss over all of it, and grows with K: see `_sorted_distance`.
    """
    teacher_SK = teacher.logprobs_MK.detach().to(student_logits_SV).exp()
    return _sorted_distance(student_logits_SV.softmax(-1), teacher_SK, 1 - teacher_SK.sum(-1))


def gold_loss(student_logits_SV: torch.Tensor, teacher: TopK, student_ids_W: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student) over tokens that both vocabularies share, and `uld_loss` of the others, summed.

    The hybrid of GOLD (Patino et al. 2025), unweighted. `student_ids_W` has the student's id of each of the teacher's W tokens, and -1
    for one that is not shared, see `shared_ids`. The shared probabilities need not sum to 1, so their KL is the one for measures, with
    the difference of the sums (Csiszar 1975): no term of it is negative, all are 0 where the models agree, and it is plain KL if all
    tokens are shared. With K below W the shared tokens outside the teacher's K are left out, and the whole is a lower bound that grows
    with K, as in `uld_loss`.
    """
    student_SV = student_logits_SV.log_softmax(-1)
    logprobs_SK = teacher.logprobs_MK.detach().to(student_SV)
    probs_SK, partners_SK = logprobs_SK.exp(), student_ids_W[teacher.ids_MK]
    is_shared_SK = partners_SK >= 0
    partner_logprobs_SK = student_SV.gather(-1, partners_SK.clamp(min=0))
    kl_SK = probs_SK * (logprobs_SK - partner_logprobs_SK) - probs_SK + partner_logprobs_SK.exp()
    others_SK = probs_SK.masked_fill(is_shared_SK, 0).sort(-1, descending=True).values
    is_other_V = torch.ones(student_SV.shape[1], dtype=torch.bool, device=student_SV.device)
    is_other_V[student_ids_W[student_ids_W >= 0]] = False
    distance = _sorted_distance(student_SV[:, is_other_V].exp(), others_SK, 1 - probs_SK.sum(-1))
    return kl_SK.where(is_shared_SK, 0).sum() + distance


def _sorted_distance(student_SV: torch.Tensor, teacher_SK: torch.Tensor, unknown_S: torch.Tensor) -> torch.Tensor:
    """L1 distance of the largest, the second largest, ... probability; the smaller side has probabilities of 0 for the rest.

    `teacher_SK` are the teacher's largest in descending order, 0 where there are fewer than K; `unknown_S` is the most that its other
    ones can sum to. What the student has beyond the known ones counts as far as it exceeds that: no less can its distance be.
    """
    size = teacher_SK.shape[1]
    student_SK = student_SV.topk(min(size, student_SV.shape[1])).values
    student_SK = pad(student_SK, (0, size - student_SK.shape[1])).where(teacher_SK > 0, 0)
    beyond_S = student_SV.sum(-1) - student_SK.sum(-1) - unknown_S.clamp(min=0)
    return (student_SK - teacher_SK).abs().sum() + beyond_S.clamp(min=0).sum()


def _log_complement(logprobs: torch.Tensor) -> torch.Tensor:
    """log(1 - p) from log p < 0, through 1 - p itself, which expm1 gives to full precision."""
    return (-logprobs.expm1()).log()
