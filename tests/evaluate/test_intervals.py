"""Intervals against scipy, against brute force, by properties, and by how often they cover the truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raydistill.evaluate.intervals import (
    mean_estimate,
    paired_difference,
    prompt_means,
    ratio_of_means,
    spearman,
)

scores = st.floats(0.01, 1.0)
samples = st.lists(st.floats(-100, 100), min_size=2, max_size=20)


@given(samples)
def test_mean_estimate_is_scipys_t_interval(values: list[float]) -> None:
    estimate = mean_estimate(values)
    assert estimate.mean == pytest.approx(np.mean(values), abs=1e-9)
    if np.std(values) > 1e-6:
        expected = stats.t.interval(0.95, len(values) - 1, loc=np.mean(values), scale=stats.sem(values))
        assert estimate.ci95 == pytest.approx(expected, abs=1e-7)


@given(samples, st.floats(-10, 10), st.floats(0.1, 10))
def test_interval_moves_and_scales_with_the_values(values: list[float], shift: float, scale: float) -> None:
    low, high = mean_estimate(values).ci95 or (math.nan, math.nan)
    moved = mean_estimate([shift + scale * value for value in values]).ci95
    assert moved == pytest.approx((shift + scale * low, shift + scale * high), abs=1e-6)


def test_a_higher_confidence_is_wider() -> None:
    values = [0.1, 0.4, 0.2]
    narrow, wide = (mean_estimate(values, confidence).ci95 for confidence in (0.8, 0.99))
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_one_value_has_no_interval_and_none_has_no_mean() -> None:
    assert mean_estimate([0.3]).ci95 is None
    with pytest.raises(ValueError, match="no values"):
        mean_estimate([])


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=2, max_size=30))
def test_estimate_over_prompt_means_is_the_cluster_robust_one(rows: list[list[bool]]) -> None:
    """The sandwich variance of a mean with clusters, sum over clusters of (sum of residuals)^2, with its B / (B - 1) correction."""
    values = np.array(rows, dtype=float)
    b = len(rows)
    sandwich = ((values - values.mean()).sum(axis=1) ** 2).sum() / values.size**2 * b / (b - 1)
    half = stats.t.ppf(0.975, b - 1) * math.sqrt(sandwich)
    estimate = mean_estimate(prompt_means(rows))
    assert estimate.n == b
    assert estimate.ci95 == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-9)


def test_copies_of_a_sample_are_no_evidence() -> None:
    once = mean_estimate(prompt_means([[1.0], [0.0], [1.0], [1.0]]))
    copied = mean_estimate(prompt_means([[1.0] * 50, [0.0] * 50, [1.0] * 50, [1.0] * 50]))
    assert copied == once


@pytest.mark.parametrize("rows", [[[1.0, 0.0], [1.0]], [[], []], []])
def test_prompts_with_different_numbers_of_samples_are_refused(rows: list[list[float]]) -> None:
    with pytest.raises(ValueError, match="same number of samples"):
        prompt_means(rows)


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=12))
def test_paired_difference_agrees_with_scipys_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    estimate = paired_difference(first, second)
    if np.std(np.subtract(first, second)) > 1e-6:
        expected = stats.ttest_rel(first, second).confidence_interval(0.95)
        assert estimate.ci95 == pytest.approx((expected.low, expected.high), abs=1e-7)


def test_pairing_removes_what_both_share() -> None:
    hard_or_easy = np.random.default_rng(0).uniform(0, 1, 200)
    paired = paired_difference(list(hard_or_easy + 0.01), list(hard_or_easy)).ci95
    assert paired == pytest.approx((0.01, 0.01))


def test_pairs_must_match() -> None:
    with pytest.raises(ValueError, match="argument"):
        paired_difference([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="argument"):
        ratio_of_means([1.0, 0.5], [1.0])


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=8))
def test_ratio_interval_by_brute_force(pairs: list[tuple[float, float]]) -> None:
    calibrated, controls = zip(*pairs, strict=True)
    result = ratio_of_means(calibrated, controls)
    assert result.ratio == pytest.approx(sum(calibrated) / sum(controls))
    logs = np.log(calibrated) - np.log(controls)
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    assert result.ci95 == pytest.approx((math.exp(logs.mean() - half), math.exp(logs.mean() + half)))


@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=8))
def test_swapping_the_sides_inverts_the_ratio(pairs: list[tuple[float, float]]) -> None:
    calibrated, controls = zip(*pairs, strict=True)
    there, back = ratio_of_means(calibrated, controls), ratio_of_means(controls, calibrated)
    assert there.ratio is not None
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert there.ci95 is not None
    assert back.ci95 == pytest.approx((1 / there.ci95[1], 1 / there.ci95[0]))


def test_ratio_without_logarithm_or_without_a_second_seed_has_no_interval() -> None:
    assert ratio_of_means([0.5], [0.25]) == ratio_of_means([0.5, 0.5], [0.5, 0.0])
    assert ratio_of_means([0.5], [0.25]).ratio == 2.0
    assert ratio_of_means([0.5], [0.25]).ci95 is None
    assert ratio_of_means([0.0, 0.0], [0.5, 0.5]).ratio == 0.0
    assert ratio_of_means([0.5, 0.5], [0.0, 0.0]).ratio is None


def test_no_scores_and_negative_scores_have_no_ratio() -> None:
    with pytest.raises(ValueError, match="no values"):
        ratio_of_means([], [])
    with pytest.raises(ValueError, match="0 or more"):
        ratio_of_means([-0.5, 0.5], [0.5, 0.5])


@pytest.mark.parametrize("n", [2, 3, 8])
def test_intervals_cover_the_truth_as_often_as_they_say(n: int) -> None:
    """4,000 draws: the share that covers has a standard error of 0.0034, and four of them are allowed."""
    draws = np.random.default_rng(7).normal(0.3, 0.1, size=(4000, n))
    covered = [low <= 0.3 <= high for low, high in (mean_estimate(list(row)).ci95 or (1, 0) for row in draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.014)


def test_clustered_interval_covers_where_one_over_samples_would_not() -> None:
    """Prompts of different difficulty, many samples of each: the naive interval over samples is far too narrow."""
    rng = np.random.default_rng(11)
    clustered, naive = [], []
    for _ in range(600):
        difficulty = rng.beta(0.5, 0.5, size=40)
        rows = rng.random((40, 8)) < difficulty[:, None]
        for hits, estimate in ((clustered, mean_estimate(prompt_means(rows.tolist()))), (naive, mean_estimate(rows.ravel().tolist()))):
            low, high = estimate.ci95 or (1, 0)
            hits.append(low <= 0.5 <= high)
    assert np.mean(clustered) == pytest.approx(0.95, abs=0.036)
    assert np.mean(naive) < 0.75


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=10))
def test_spearman_is_pearsons_of_average_ranks(pairs: list[tuple[int, int]]) -> None:
    x, y = zip(*pairs, strict=True)
    result = spearman(x, y)
    if len(set(x)) < 2 or len(set(y)) < 2:
        assert result is None
    else:
        ranks = [[sum(v < w for v in side) + (sum(v == w for v in side) + 1) / 2 for w in side] for side in (x, y)]
        assert result == pytest.approx(np.corrcoef(ranks)[0, 1])


def test_spearman_sees_order_alone() -> None:
    for order in itertools.permutations(range(4)):
        assert spearman([math.exp(value) for value in order], order) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="paired"):
        spearman([1, 2], [1])
