import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.diagnose.tail_noise import kl_at_k
from raydistill.diagnose.tail_tokens import TailSums, tail_parts
from raydistill.students.losses import teacher_topk, topk_jsd_loss


def logits(seed, positions=4, vocabulary=15, scale=3.0):
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(seed, **shape):
    return logits(seed, **shape).log_softmax(-1), logits(seed + 1, **shape).log_softmax(-1)


def one_hot(class_V, classes=3):
    return torch.nn.functional.one_hot(torch.tensor(class_V), classes).double()


def brute_force(teacher_V, student_V, k):
    """Each token's contribution beyond k, by a loop, as P times a term of the KL of the two normalised tails."""
    p, q = teacher_V.exp().numpy(), student_V.exp().numpy()
    tail = np.argsort(-p)[k:]
    found = np.zeros(len(p))
    for token in tail:
        own, other = p[token] / p[tail].sum(), q[token] / q[tail].sum()
        found[token] = p[tail].sum() * (own * np.log(own / other) - own + other)
    return found


def test_contributions_are_those_of_a_loop_and_sum_to_what_lies_beyond_k():
    teacher_PV, student_PV = pair(1)
    class_V, ks = [token % 3 for token in range(15)], (1, 4, 10)
    parts = tail_parts(teacher_PV, student_PV, ks, one_hot(class_V))
    forward_PK, _ = kl_at_k(teacher_PV, student_PV, (*ks, 15))
    for place, k in enumerate(ks):
        by_token = np.array([brute_force(p, q, k) for p, q in zip(teacher_PV, student_PV, strict=True)])
        assert np.allclose(parts.by_token_KV[place], by_token.sum(0), atol=1e-12)
        for held in range(3):
            assert np.allclose(parts.by_class_PKC[:, place, held], by_token[:, np.array(class_V) == held].sum(1), atol=1e-12)
        assert np.allclose(parts.by_class_PKC[:, place].sum(-1), forward_PK[:, -1] - forward_PK[:, place], atol=1e-12)


def test_they_sum_as_p_log_p_over_q_less_the_buckets_share_does():
    teacher_PV, student_PV = pair(5)
    parts = tail_parts(teacher_PV, student_PV, (4,), one_hot([0] * 15))
    for position in range(4):
        p, q = teacher_PV[position].exp().numpy(), student_PV[position].exp().numpy()
        tail = np.argsort(-p)[4:]
        ratio = p[tail].sum() / q[tail].sum()
        plain = sum(p[token] * np.log(p[token] / q[token]) - p[token] * np.log(ratio) for token in tail)
        assert parts.by_class_PKC[position, 0, 0].item() == pytest.approx(plain, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(0.01, 20))
def test_no_contribution_is_negative_and_a_larger_k_leaves_less(seed, vocabulary, scale):
    teacher_PV, student_PV = pair(seed, vocabulary=vocabulary, scale=scale)
    ks = tuple(range(1, vocabulary))
    parts = tail_parts(teacher_PV, student_PV, ks, one_hot([0] * vocabulary, 1))
    assert parts.by_token_KV.min() > -1e-9
    assert (parts.by_class_PKC[..., 0].diff(dim=1) < 1e-9).all()
    assert torch.allclose(parts.by_token_KV.sum(-1), parts.by_class_PKC[..., 0].sum(0), atol=1e-9)


def test_renormalised_is_the_kl_of_the_top_k_alone_and_the_bucket_is_the_projects_loss():
    teacher_PV, student_PV = pair(3)
    parts = tail_parts(teacher_PV, student_PV, (3, 8), one_hot([0] * 15, 1))
    at_k, _ = kl_at_k(teacher_PV, student_PV, (3, 8))
    for place, k in enumerate((3, 8)):
        for position in range(4):
            p, q = teacher_PV[position].exp().numpy(), student_PV[position].exp().numpy()
            top = np.argsort(-p)[:k]
            own, other = p[top] / p[top].sum(), q[top] / q[top].sum()
            assert parts.renormalised_PK[position, place].item() == pytest.approx((own * np.log(own / other)).sum(), abs=1e-12)
            # the chain rule: what is seen within the top k is the bucket's KL less that of in or out
            assert p[top].sum() * parts.renormalised_PK[position, place].item() <= at_k[position, place].item() + 1e-12
        loss = topk_jsd_loss(student_PV, teacher_topk(teacher_PV, k), jsd_beta=0.0).loss
        assert at_k[:, place].sum().item() == pytest.approx(loss.item(), abs=1e-9)


def test_a_teacher_without_a_tail_has_no_contributions():
    teacher_PV = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64).log()
    student_PV = torch.tensor([[0.25, 0.25, 0.3, 0.2]], dtype=torch.float64).log()
    parts = tail_parts(teacher_PV, student_PV, (2,), one_hot([0] * 4, 1))
    assert parts.by_token_KV.tolist() == [[0.0] * 4]
    assert parts.renormalised_PK.item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("ks", [(0,), (15,), (4, 2), (2, 2)])
def test_refuses_sizes_that_leave_no_tail_or_do_not_ascend(ks):
    with pytest.raises(ValueError, match="must ascend"):
        tail_parts(*pair(1), ks, one_hot([0] * 15, 1))


def test_sums_add_up_over_what_is_shown_and_name_the_heaviest():
    class_V = torch.tensor([token % 2 for token in range(15)])
    sums = TailSums((2, 5), class_V, 2)
    shown = [pair(seed) for seed in (1, 9)]
    for one in shown:
        sums.add(*one)
    whole = sum(tail_parts(*one, (2, 5), one_hot(class_V.tolist(), 2)).by_token_KV for one in shown)
    for place, row in enumerate(sums.heaviest(4)):
        assert [token for token, _ in row] == torch.argsort(whole[place], descending=True)[:4].tolist()
        assert [nats for _, nats in row] == pytest.approx(whole[place].sort(descending=True).values[:4].tolist())
    assert len(sums.heaviest(99)[0]) == 15
