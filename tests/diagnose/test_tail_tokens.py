import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.diagnose.tail_noise import kl_at_k, side_by_side
from raydistill.diagnose.tail_tokens import TailSums, tail_parts
from raydistill.students.losses import teacher_topk, topk_jsd_loss


def logits(seed, positions=4, vocabulary=15, scale=3.0):
    return scale * torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(seed, **shape):
    return logits(seed, **shape).log_softmax(-1), logits(seed + 1, **shape).log_softmax(-1)


def one_hot(class_V, classes=3):
    return torch.nn.functional.one_hot(torch.tensor(class_V), classes).double()


def parts_of(teacher_PV, student_PV, ks, class_VC):
    return tail_parts(side_by_side(teacher_PV, student_PV, ks), ks, class_VC)


def brute_force(first_V, second_V, teacher_V, k):
    """Each token's contribution beyond the teacher's top k, by a loop, as P times a term of the KL of the two normalised tails."""
    p, q = first_V.exp().numpy(), second_V.exp().numpy()
    tail = np.argsort(-teacher_V.numpy())[k:]
    found = np.zeros(len(p))
    for token in tail:
        own, other = p[token] / p[tail].sum(), q[token] / q[tail].sum()
        found[token] = p[tail].sum() * (own * np.log(own / other) - own + other)
    return found


@pytest.mark.parametrize("way", [0, 1])
def test_contributions_are_those_of_a_loop_and_sum_to_what_lies_beyond_k(way):
    both = teacher_PV, student_PV = pair(1)
    class_V, ks = [token % 3 for token in range(15)], (1, 4, 10)
    parts = parts_of(teacher_PV, student_PV, ks, one_hot(class_V))
    kl_PK = kl_at_k(side_by_side(teacher_PV, student_PV, (*ks, 15)), (*ks, 15))[way]
    for place, k in enumerate(ks):
        by_token = np.array([brute_force(p, q, t, k) for p, q, t in zip(both[way], both[1 - way], teacher_PV, strict=True)])
        assert np.allclose(parts.by_token_2KV[way, place], by_token.sum(0), atol=1e-12)
        for held in range(3):
            assert np.allclose(parts.by_class_P2KC[:, way, place, held], by_token[:, np.array(class_V) == held].sum(1), atol=1e-12)
        assert np.allclose(parts.by_class_P2KC[:, way, place].sum(-1), kl_PK[:, -1] - kl_PK[:, place], atol=1e-12)


def test_where_likeliest_tokens_tie_both_take_the_same():
    teacher_PV, student_PV = ((logits(seed, 64, 2000).bfloat16().double()).log_softmax(-1) for seed in (1, 2))
    ks = (10, 50, 100, 1000, 2000)
    both = side_by_side(teacher_PV, student_PV, ks)
    parts = tail_parts(both, (10, 50, 100), one_hot([0] * 2000, 1))
    for way, kl_PK in enumerate(kl_at_k(both, ks)):
        beyond_PK = kl_PK[:, -1:] - kl_PK[:, :3]
        assert torch.allclose(parts.by_class_P2KC[:, way, :, 0], beyond_PK, atol=1e-12)


def test_they_sum_as_p_log_p_over_q_less_the_buckets_share_does():
    teacher_PV, student_PV = pair(5)
    parts = parts_of(teacher_PV, student_PV, (4,), one_hot([0] * 15))
    for position in range(4):
        p, q = teacher_PV[position].exp().numpy(), student_PV[position].exp().numpy()
        tail = np.argsort(-p)[4:]
        ratio = p[tail].sum() / q[tail].sum()
        plain = sum(p[token] * np.log(p[token] / q[token]) - p[token] * np.log(ratio) for token in tail)
        assert parts.by_class_P2KC[position, 0, 0, 0].item() == pytest.approx(plain, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 40), st.floats(0.01, 20))
def test_no_contribution_is_negative_and_a_larger_k_leaves_less(seed, vocabulary, scale):
    teacher_PV, student_PV = pair(seed, vocabulary=vocabulary, scale=scale)
    ks = tuple(range(1, vocabulary))
    parts = parts_of(teacher_PV, student_PV, ks, one_hot([0] * vocabulary, 1))
    assert parts.by_token_2KV.min() > -1e-9
    assert (parts.by_class_P2KC[..., 0].diff(dim=2) < 1e-9).all()
    assert torch.allclose(parts.by_token_2KV.sum(-1), parts.by_class_P2KC[..., 0].sum(0), atol=1e-9)


def test_renormalised_is_the_kl_of_the_top_k_alone_and_the_bucket_is_the_projects_loss():
    teacher_PV, student_PV = pair(3)
    parts = parts_of(teacher_PV, student_PV, (3, 8), one_hot([0] * 15, 1))
    at_k, _ = kl_at_k(side_by_side(teacher_PV, student_PV, (3, 8)), (3, 8))
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
    parts = parts_of(teacher_PV, student_PV, (2,), one_hot([0] * 4, 1))
    assert parts.by_token_2KV[0].tolist() == [[0.0] * 4]
    assert parts.by_token_2KV[1, 0].tolist() == [0.0, 0.0, np.inf, np.inf]
    assert parts.renormalised_PK.item() == pytest.approx(0, abs=1e-12)


def test_a_student_whose_tail_is_too_small_for_a_double_still_has_contributions():
    teacher_PV = torch.tensor([[0.5, 0.3, 0.15, 0.05]], dtype=torch.float64).log()
    student_PV = torch.tensor([[-0.5, -1.0, -800.0, -801.0]], dtype=torch.float64)
    assert student_PV.exp()[0, 2] == 0
    parts = parts_of(teacher_PV, student_PV, (2,), one_hot([0] * 4, 1))
    p, q = np.array([0.75, 0.25]), np.exp([0.0, -1.0]) / (1 + np.exp(-1))  # the tails, normalised
    assert parts.by_token_2KV[0, 0, 2:].tolist() == pytest.approx((0.2 * (p * np.log(p / q) - p + q)).tolist(), abs=1e-12)
    assert parts.by_token_2KV[1, 0].tolist() == [0.0] * 4


def test_neither_model_s_tail_is_none():
    both = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64).log()
    assert parts_of(both, both, (2,), one_hot([0] * 4, 1)).by_token_2KV.abs().max() == 0


def test_without_a_k_there_is_no_tail():
    sums = TailSums((), torch.zeros(8, dtype=torch.int8), 3)
    renormalised_PK, by_class_P2KC = sums.add(side_by_side(*pair(1, vocabulary=8), (1, 2, 5, 8)))
    assert (renormalised_PK.shape, by_class_P2KC.shape) == ((4, 0), (4, 2, 0, 3))
    assert sums.heaviest(20) == ((), ())


@pytest.mark.parametrize("k", [0, 5])
def test_refuses_what_was_not_ranked(k):
    with pytest.raises(ValueError, match="from 1 to the 4 that are ranked"):
        tail_parts(side_by_side(*pair(1), (4, 15)), (k,), one_hot([0] * 15, 1))


def test_sums_add_up_over_what_is_shown_and_name_the_heaviest():
    class_V = torch.tensor([token % 2 for token in range(15)])
    sums = TailSums((2, 5), class_V, 2)
    shown = [pair(seed) for seed in (1, 9)]
    for one in shown:
        sums.add(side_by_side(*one, (2, 5)))
    whole = sum(parts_of(*one, (2, 5), one_hot(class_V.tolist(), 2)).by_token_2KV for one in shown)
    for way, rows in enumerate(sums.heaviest(4)):
        for place, row in enumerate(rows):
            assert [token for token, _ in row] == torch.argsort(whole[way, place], descending=True)[:4].tolist()
            assert [nats for _, nats in row] == pytest.approx(whole[way, place].sort(descending=True).values[:4].tolist())
    assert len(sums.heaviest(99)[0][0]) == 15
