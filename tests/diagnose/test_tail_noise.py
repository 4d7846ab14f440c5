import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr

from raydistill.diagnose.tail_noise import kl_at_k, side_by_side, sizes


def logprobs(seed, positions=3, vocabulary=12, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(positions, vocabulary, generator=generator, dtype=torch.float64)).log_softmax(-1)


def at_k(teacher_PV, student_PV, ks):
    return kl_at_k(side_by_side(teacher_PV, student_PV, ks), ks)


def brute_force(teacher_V, student_V, k):
    """Merge by hand, then scipy's relative entropy."""
    p, q = teacher_V.exp().numpy(), student_V.exp().numpy()
    order = np.argsort(-p)
    merged = [np.append(one[order[:k]], one[order[k:]].sum()) for one in (p, q)]
    return rel_entr(*merged).sum(), rel_entr(*merged[::-1]).sum()


def test_is_the_kl_of_merged_distributions():
    teacher_PV, student_PV = logprobs(1), logprobs(2)
    ks = (1, 2, 5, 11, 12)
    forward_PK, reverse_PK = at_k(teacher_PV, student_PV, ks)
    for position in range(3):
        for place, k in enumerate(ks):
            forward, reverse = brute_force(teacher_PV[position], student_PV[position], k)
            assert forward_PK[position, place].item() == pytest.approx(forward, abs=1e-12)
            assert reverse_PK[position, place].item() == pytest.approx(reverse, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 40), st.floats(0.01, 30))
def test_is_not_negative_grows_with_k_and_is_the_kl_at_v(seed, vocabulary, scale):
    teacher_PV, student_PV = logprobs(seed, 2, vocabulary, scale), logprobs(seed + 1, 2, vocabulary, scale)
    ks = tuple(range(1, vocabulary + 1))
    for found_PK, (p, q) in zip(at_k(teacher_PV, student_PV, ks), ((teacher_PV, student_PV), (student_PV, teacher_PV)), strict=True):
        assert (found_PK >= 0).all()
        assert (found_PK.diff(dim=-1) >= -1e-9).all()
        assert torch.allclose(found_PK[:, -1], torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1), atol=1e-9)


def test_equal_models_are_nowhere_apart():
    teacher_PV = logprobs(3)
    assert all(found.abs().max() < 1e-12 for found in at_k(teacher_PV, teacher_PV, (1, 5, 12)))


def test_a_token_that_cannot_come_counts_nothing():
    teacher_PV = torch.tensor([[0.5, 0.5, 0.0]], dtype=torch.float64).log()
    student_PV = torch.tensor([[0.25, 0.25, 0.5]], dtype=torch.float64).log()
    forward_PK, _ = at_k(teacher_PV, student_PV, (1, 2, 3))
    assert forward_PK[0, 1:].tolist() == pytest.approx([np.log(2)] * 2)


def test_a_token_that_the_student_alone_rules_out_makes_one_direction_infinite():
    teacher_PV = torch.tensor([[0.5, 0.3, 0.2, 0.0]], dtype=torch.float64).log()
    student_PV = torch.tensor([[0.5, 0.5, 0.0, 0.0]], dtype=torch.float64).log()
    forward_PK, reverse_PK = at_k(teacher_PV, student_PV, (1, 2, 4))
    assert forward_PK[0, 0].item() == pytest.approx(0, abs=1e-12)
    assert forward_PK[0, 1:].tolist() == [np.inf, np.inf]
    assert reverse_PK[0].tolist() == pytest.approx([0, 0.5 * np.log(0.5 / 0.3), 0.5 * np.log(0.5 / 0.3)])


def test_sizes_end_at_the_vocabulary():
    assert sizes(39) == (1, 2, 5, 10, 20, 39)
    assert sizes(50) == (1, 2, 5, 10, 20, 50)


@pytest.mark.parametrize("ks", [(0,), (13,)])
def test_refuses_a_size_that_cannot_be(ks):
    with pytest.raises(ValueError, match="from 1 to the 12"):
        at_k(logprobs(1), logprobs(2), ks)
