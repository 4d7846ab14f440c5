import math

import numpy as np
import pytest
from scipy import stats

from raydistill.diagnose.gradient_noise import spread, variance_ratio


def test_spread_is_numpys():
    norms = [1.0, 2.5, 3.0, 0.5]
    found = spread(norms)
    assert found.variance == pytest.approx(np.var(norms, ddof=1))
    assert found.variation == pytest.approx(stats.variation(norms, ddof=1))
    assert found.mean.mean == pytest.approx(np.mean(norms))
    assert spread([0.0, 0.0]).variation is None


def test_the_ratio_is_that_of_the_variances_and_turns_round_with_its_interval():
    first, second = [1.0, 2.0, 4.0, 3.0], [1.0, 1.5, 2.0, 1.2]
    found, turned = variance_ratio(first, second), variance_ratio(second, first)
    assert found.mean == pytest.approx(np.var(first, ddof=1) / np.var(second, ddof=1))
    assert found.ci95[0] < found.mean < found.ci95[1]
    assert (turned.mean, *turned.ci95) == pytest.approx((1 / found.mean, 1 / found.ci95[1], 1 / found.ci95[0]))
    assert variance_ratio([10 * one for one in first], second).mean == pytest.approx(100 * found.mean)


def test_the_interval_is_that_of_scipys_jackknife():
    rng = np.random.default_rng(4)
    first, second = rng.gamma(2, size=12), rng.gamma(2, size=12)

    def log_ratio(rows):
        return math.log(np.var(first[rows], ddof=1) / np.var(second[rows], ddof=1))

    parts = np.array([log_ratio(np.delete(np.arange(12), place)) for place in range(12)])
    error = math.sqrt(11 / 12 * ((parts - parts.mean()) ** 2).sum())
    half = stats.t.ppf(0.975, 11) * error
    log = log_ratio(np.arange(12))
    assert variance_ratio(list(first), list(second)).ci95 == pytest.approx((math.exp(log - half), math.exp(log + half)))


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_it_holds_the_true_ratio_about_as_often_as_it_says_where_norms_are_skewed_and_paired(shared):
    rng = np.random.default_rng(5)
    hits = 0
    for _ in range(400):
        common = rng.normal(size=16)
        first, second = (np.exp(0.4 * (shared * common + math.sqrt(1 - shared**2) * rng.normal(size=16))) for _ in range(2))
        low, high = variance_ratio(list(first), list(second)).ci95
        hits += low <= 1 <= high
    assert 0.9 <= hits / 400 <= 0.99


def test_without_variation_or_with_two_units_there_is_none():
    assert variance_ratio([1.0, 2.0], [1.0, 2.0]) is None
    assert variance_ratio([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert variance_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 2.0]) is None
    with pytest.raises(ValueError, match="zip"):
        variance_ratio([1.0, 2.0, 3.0], [1.0, 2.0])
