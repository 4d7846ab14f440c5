"""Which process computes what, padded how."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydistill.learner import microbatch
from raydistill.learner.batch import Sample

LENGTHS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=30)


def _samples(lengths: list[tuple[int, int]]) -> list[Sample]:
    return [Sample((1,) * prompt, (2,) * length, (0.0,) * length, 1.0) for prompt, length in lengths]


@given(LENGTHS, st.integers(1, 4), st.integers(1, 60))
def test_spread_deals_every_sample_once_in_equally_many_passes(lengths: list[tuple[int, int]], world: int, budget: int) -> None:
    samples = _samples(lengths)
    plans = microbatch.spread(samples, range(len(samples)), world, budget)
    assert len(plans) == world
    assert len({len(plan) for plan in plans}) == 1
    assert sorted(i for plan in plans for rows in plan for i in rows) == list(range(len(samples)))
    for rows in (rows for plan in plans for rows in plan if len(rows) > 1):
        assert len(rows) * max(sum(lengths[i]) for i in rows) <= budget
    assert plans == microbatch.spread(samples, range(len(samples)), world, budget)


@given(LENGTHS, st.integers(1, 5))
def test_split_keeps_order_and_every_token(lengths: list[tuple[int, int]], parts: int) -> None:
    samples = _samples(lengths)
    runs = microbatch.split(samples, parts)
    assert len(runs) <= parts
    joined = [i for run in runs for i in run]
    assert joined == sorted(joined)
    assert {i for i, sample in enumerate(samples) if sample.completion_ids} <= set(joined)


def test_collate_pads_by_length_and_points_one_before_each_token() -> None:
    samples = [Sample((5, 0), (0, 7), (-1.0, -2.0), 0.5), Sample((3,), (4, 0, 9), (-3.0, -4.0, -5.0), -1.5)]
    anchor = [np.array([0.1, 0.2]), np.array([0.3, 0.4, 0.5])]
    micro = microbatch.collate(samples, anchor, [1, 0], torch.device("cpu"))
    assert micro.ids_NT.tolist() == [[3, 4, 0, 9], [5, 0, 0, 7]]
    assert micro.attention_NT.tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]  # token 0 inside a sequence is not padding
    assert micro.positions_K.tolist() == [0, 1, 2, 5, 6]
    assert micro.targets_K.tolist() == [4, 0, 9, 0, 7]
    assert micro.rollout_K.tolist() == [-3, -4, -5, -1, -2]
    assert micro.advantages_K.tolist() == [-1.5, -1.5, -1.5, 0.5, 0.5]
    torch.testing.assert_close(micro.anchor, torch.tensor([0.3, 0.4, 0.5, 0.1, 0.2]))


def test_an_empty_micro_batch_has_a_token_to_compute_and_none_to_learn_from() -> None:
    micro = microbatch.collate([], [np.zeros((3, 40))], [], torch.device("cpu"))
    assert micro.ids_NT.shape == (1, 1)
    assert micro.attention_NT.tolist() == [[1]]
    assert micro.positions_K.shape == micro.targets_K.shape == (0,)
    assert micro.anchor.shape == (0, 40)


@pytest.mark.parametrize(
    ("break_it", "says"),
    [
        (lambda samples, anchor: (samples, anchor[:-1]), "2 samples but 1 arrays"),
        (lambda samples, anchor: (samples, [anchor[0], anchor[1][:-1]]), r"sample 1 needs .* shape \(3,\), not \(2,\)"),
        (lambda samples, anchor: ([samples[0], Sample((), (1,), (0.0,), 1.0)], anchor), "sample 1 has an empty prompt"),
        (lambda samples, anchor: ([Sample((1,), (1, 2), (0.0,), 1.0), samples[1]], anchor), "sample 0 .* 1 rollout"),
    ],
)
def test_check_names_what_does_not_match(break_it: Callable[..., tuple[list[Sample], list[np.ndarray]]], says: str) -> None:
    samples, anchor = break_it(_samples([(2, 3), (2, 3)]), [np.zeros(3), np.zeros(3)])
    with pytest.raises(ValueError, match=says):
        microbatch.check(samples, anchor, vocabulary=None)


def test_check_wants_whole_distributions_of_this_vocabulary() -> None:
    microbatch.check(_samples([(2, 3)]), [np.zeros((3, 40))], vocabulary=40)
    for wrong in (np.zeros(3), np.zeros((3, 39))):
        with pytest.raises(ValueError, match=r"shape \(3, 40\)"):
            microbatch.check(_samples([(2, 3)]), [wrong], vocabulary=40)
