import numpy as np
import pytest
from scipy import stats

from raydistill.evaluate.intervals import mean_estimate
from raydistill.evaluate.ratios import difference_of_ratios, ratio_estimate, ratio_of_ratios


def test_over_equal_denominators_it_is_the_mean():
    values = [1.0, 2.0, 4.0]
    expected = mean_estimate(values)
    found = ratio_estimate([2 * value for value in values], [2.0] * 3)
    assert found.mean == pytest.approx(expected.mean)
    assert found.ci95 == pytest.approx(expected.ci95)


def test_units_without_a_denominator_have_no_part():
    assert ratio_estimate([1.0, 0.0, 2.0], [1.0, 0.0, 4.0]) == ratio_estimate([1.0, 2.0], [1.0, 4.0])


def test_the_interval_is_that_of_a_bootstrap_over_units():
    rng = np.random.default_rng(0)
    tokens = rng.integers(5, 30, 200).astype(float)
    kl = tokens * rng.gamma(2, 0.1, 200)
    found = ratio_estimate(kl.tolist(), tokens.tolist())
    assert found.mean == pytest.approx(kl.sum() / tokens.sum())
    boot = stats.bootstrap(
        (kl, tokens),
        lambda a, b, axis: a.sum(axis) / b.sum(axis),
        paired=True,
        vectorized=True,
        rng=rng,
        n_resamples=2000,
        method="percentile",
    )
    assert found.ci95 == pytest.approx(tuple(boot.confidence_interval), rel=0.03)


def test_a_ratio_of_ratios_is_paired():
    rng = np.random.default_rng(1)
    tokens = rng.integers(5, 30, 150).astype(float)
    kl = tokens * rng.gamma(2, 0.1, 150)
    same = ratio_of_ratios((kl.tolist(), tokens.tolist()), (kl.tolist(), tokens.tolist()))
    assert same.mean == pytest.approx(1)
    assert same.ci95 == pytest.approx((1, 1))
    other = (2 * kl * rng.gamma(20, 1 / 20, 150), tokens)
    found = ratio_of_ratios(tuple(map(list, other)), (list(kl), list(tokens)))
    picks = rng.integers(0, 150, (2000, 150))
    drawn = other[0][picks].sum(1) / kl[picks].sum(1)
    assert found.mean == pytest.approx(other[0].sum() / kl.sum())
    assert found.ci95 == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), rel=0.03)


@pytest.mark.parametrize(("numerators", "denominators"), [([1.0], [0.0]), ([1.0, 1.0], [1.0, -1.0]), ([], [])])
def test_refuses_what_has_no_ratio(numerators, denominators):
    with pytest.raises(ValueError, match="denominator"):
        ratio_estimate(numerators, denominators)


def test_refuses_a_ratio_of_ratios_of_nothing():
    with pytest.raises(ValueError, match="positive"):
        ratio_of_ratios(([0.0, 0.0], [1.0, 1.0]), ([1.0, 1.0], [1.0, 1.0]))


def test_a_difference_of_ratios_is_paired_and_keeps_units_that_only_one_has():
    rng = np.random.default_rng(2)
    sizes = rng.integers(0, 4, (2, 160)).astype(float)  # some units are in one ratio alone, some in none
    shared = rng.normal(size=160)
    sums = sizes * (1 + 0.5 * shared + 0.1 * rng.normal(size=(2, 160)))
    first, second = ((list(sums[at]), list(sizes[at])) for at in (0, 1))
    found = difference_of_ratios(first, second)
    ratios = sums.sum(1) / sizes.sum(1)
    assert found.mean == pytest.approx(ratios[0] - ratios[1])
    assert found.n == (sizes.sum(0) > 0).sum()
    picks = rng.integers(0, 160, (4000, 160))
    drawn = [sums[at][picks].sum(1) / sizes[at][picks].sum(1) for at in (0, 1)]
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert found.ci95[1] - found.ci95[0] == pytest.approx(high - low, rel=0.08)
    alike = difference_of_ratios(first, first)
    assert (alike.mean, alike.ci95) == (pytest.approx(0), pytest.approx((0, 0)))
    with pytest.raises(ValueError, match="denominator"):
        difference_of_ratios(first, ([0.0] * 160, [0.0] * 160))
