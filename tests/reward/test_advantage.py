"""The advantage against a brute-force loop, TRL's group normalisation and the properties the method page asks for."""

import statistics

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raydistill.reward.advantage import STD_EPSILON, advantages, calibration_mask, combined, group_normalise, score_gap

B, G = 3, 5
finite = st.floats(-50, 50, allow_nan=False, width=32)
rewards = arrays(np.float64, (B, G), elements=finite)
masks = arrays(np.bool_, (B, G))


def brute_force(row, mask, min_spread):
    chosen = [r for r, m in zip(row, mask, strict=True) if m]
    if len(chosen) < 2 or statistics.stdev(chosen) <= min_spread:
        return [0.0] * len(row)
    mean, std = statistics.fmean(chosen), statistics.stdev(chosen)
    return [(r - mean) / (std + STD_EPSILON) if m else 0.0 for r, m in zip(row, mask, strict=True)]


@given(rewards, masks)
def test_equals_a_loop_over_groups(rewards_BG, mask_BG):
    got = group_normalise(rewards_BG, mask_BG, min_spread=1e-3)
    want = [brute_force(row, mask, 1e-3) for row, mask in zip(rewards_BG, mask_BG, strict=True)]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@given(rewards, masks)
def test_samples_outside_the_mask_change_nothing_even_if_nan(rewards_BG, mask_BG):
    spoilt = np.where(mask_BG, rewards_BG, np.nan)
    np.testing.assert_array_equal(group_normalise(spoilt, mask_BG, 1e-3), group_normalise(rewards_BG, mask_BG, 1e-3))


@given(rewards, masks, st.floats(-2, 2))
def test_wrong_samples_of_a_mixed_group_never_gain(rewards_BG, right_BG, eta):
    truncated = np.zeros((B, G), bool)
    everything = np.ones((B, G), bool)
    cal_mask = calibration_mask(right_BG, truncated, everything, only_right=True)
    adv = advantages(right_BG, everything, rewards_BG, cal_mask, eta, min_spread=1e-3)
    mixed = right_BG.any(axis=1) & ~right_BG.all(axis=1)
    assert (adv[mixed][~right_BG[mixed]] < 0).all()


def test_a_lone_wrong_trace_can_win_when_all_samples_are_scored():
    """Why `cal_on: right` is the default: the proxy dislikes the wrong trace, and eta = -2 rewards that."""
    right = np.array([[True] * 7 + [False]])
    gaps = np.array([[0.0] * 7 + [-3.0]])
    everything = np.ones_like(right)
    on_all = advantages(right, everything, gaps, calibration_mask(right, ~everything, everything, only_right=False), -2.0, 1e-3)
    on_right = advantages(right, everything, gaps, calibration_mask(right, ~everything, everything, only_right=True), -2.0, 1e-3)
    assert on_all[0, -1] > 0
    assert on_right[0, -1] < 0


def test_a_flat_group_contributes_nothing_and_never_nan():
    flat = np.full((1, 4), 0.3) + np.array([[0, 1e-4, -1e-4, 0]])
    assert (group_normalise(flat, np.ones((1, 4), bool), min_spread=1e-3) == 0).all()
    assert (group_normalise(flat, np.ones((1, 4), bool), min_spread=0.0) != 0).any()


def test_failed_checks_leave_the_statistics():
    right = np.array([[True, False, True, False]])
    valid = np.array([[True, True, True, False]])
    none = np.zeros((1, 4), bool)
    got = advantages(right, valid, np.zeros((1, 4)), none, 1.0, 1e-3)
    want = brute_force([1.0, 0.0, 1.0, 0.0], valid[0], 0.0)
    np.testing.assert_allclose(got[0], want)
    assert got[0, 3] == 0


@given(rewards)
def test_eta_zero_is_the_placebo(gaps_BG):
    right = np.array([[True, False, True, True, False]] * B)
    everything = np.ones((B, G), bool)
    with_gaps = advantages(right, everything, gaps_BG, right, 0.0, 1e-3)
    np.testing.assert_array_equal(with_gaps, advantages(right, everything, np.zeros((B, G)), right, 0.0, 1e-3))


@given(rewards, st.floats(0.1, 2))
def test_the_sign_of_eta_turns_the_calibration_part_around(gaps_BG, eta):
    right = np.ones((B, G), bool)
    up = advantages(right, right, gaps_BG, right, eta, 1e-3)
    down = advantages(right, right, gaps_BG, right, -eta, 1e-3)
    np.testing.assert_allclose(up, -down)


def test_without_dividing_the_scale_of_the_reward_stays():
    gaps = np.array([[1.0, 2.0, 3.0]])
    everything = np.ones((1, 3), bool)
    np.testing.assert_allclose(group_normalise(10 * gaps, everything, 1e-3, divide_by_std=False), [[-10, 0, 10]])


def test_truncated_samples_get_no_calibration_reward():
    right = np.array([[True, True, True]])
    truncated = np.array([[False, True, False]])
    assert calibration_mask(right, truncated, np.ones_like(right), only_right=False).tolist() == [[True, False, True]]


def test_equals_torch_where_all_samples_take_part():
    """(r - mean) / (std + 1e-4) by torch's own mean and (ddof 1) std, as TRL's GRPO writes it."""
    gaps = np.random.default_rng(0).normal(size=(4, 8))
    grouped = torch.tensor(gaps)
    want = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    np.testing.assert_allclose(group_normalise(gaps, np.ones_like(gaps, bool), 1e-3), want.numpy(), rtol=1e-12)


def test_the_gap_of_a_model_with_itself_is_exactly_zero():
    scores = np.random.default_rng(1).normal(size=(2, 3)) * 100
    assert (score_gap(scores, scores) == 0).all()
    np.testing.assert_array_equal(score_gap(scores, None), scores)


@given(st.lists(rewards, min_size=1, max_size=4), st.sampled_from([-2.0, -0.5, 0.5, 1.0]))
def test_the_worst_case_gives_no_student_less_than_it_counts(per_student, eta):
    worst_BG = combined(per_student, worst_for=eta)
    for rewards_BG in per_student:
        assert (eta * worst_BG <= eta * rewards_BG).all()
    assert np.isin(worst_BG, np.stack(per_student)).all()
    np.testing.assert_allclose(combined(per_student, worst_for=None), sum(per_student) / len(per_student), rtol=1e-12, atol=1e-12)


def test_two_students_are_combined_by_mean_or_worst_case():
    one, other = np.array([[1.0, -1.0]]), np.array([[0.0, 3.0]])
    assert combined([one, other], None).tolist() == [[0.5, 1.0]]
    assert combined([one, other], 1.0).tolist() == [[0.0, -1.0]]  # natural for both
    assert combined([one, other], -1.0).tolist() == [[1.0, 3.0]]  # natural for neither


def test_a_single_student_is_itself_to_the_bit():
    alone = np.array([[0.1, -0.7, np.nan]])
    for worst_for in (None, 1.0, -1.0):
        np.testing.assert_array_equal(combined([alone], worst_for), alone)
