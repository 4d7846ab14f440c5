import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.diagnose.comparer import BINS, TraceDivergence
from raydistill.diagnose.growth import growth
from raydistill.evaluate.intervals import mean_estimate


def trace(tokens, early, late):
    kl = (early + late,)
    return TraceDivergence(tokens, kl, kl, (0.0,) * BINS, (0,) * BINS, forward_by_half=(early, late))


def test_is_the_late_half_over_the_early_one_on_either_kind_of_prefixes():
    rising = [[trace(10, 1.0, 3.0), trace(5, 1.0, 1.0)], [trace(7, 2.0, 8.0)]]
    level = [[trace(10, 2.0, 2.0)], [trace(4, 1.0, 1.0)]]
    found = growth(level, rising)
    assert found["student_prefixes"]["value"] == pytest.approx(12 / 4)
    assert found["student_prefixes"]["ci95"][0] < 3 < found["student_prefixes"]["ci95"][1]
    assert (found["teacher_prefixes"]["value"], found["teacher_prefixes"]["ci95"]) == (pytest.approx(1), pytest.approx([1, 1]))
    assert (found["student_prefixes"]["n"], found["student_prefixes"]["reference"]) == (2, 1.0)


@given(st.lists(st.tuples(st.integers(2, 9), st.floats(0.1, 9)), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_kl_that_grows_alike_everywhere_has_that_growth_without_doubt(traces, factor):
    rows = [[trace(tokens, kl, factor * kl)] for tokens, kl in traces]
    found = growth(rows, rows)["student_prefixes"]
    assert [found["value"], *found["ci95"]] == pytest.approx([factor] * 3)


def test_the_interval_is_that_of_the_logarithm_linearised():
    traces = [(4, 1.0, 2.0), (6, 2.0, 1.0), (8, 1.5, 4.0)]
    found = growth([[trace(2, 1.0, 1.0)]], [[trace(*one)] for one in traces])["student_prefixes"]
    early, late = sum(one for _, one, _ in traces), sum(one for _, _, one in traces)
    contributions = mean_estimate([3 * (own_late / late - own_early / early) for _, own_early, own_late in traces])
    half = (contributions.ci95[1] - contributions.ci95[0]) / 2
    import math

    assert found["ci95"] == pytest.approx([late / early * math.exp(sign * half) for sign in (-1, 1)])


def test_completions_of_a_token_have_no_halves():
    rows = [[trace(4, 1.0, 2.0)], [trace(1, 0.0, 0.0)]]
    assert growth(rows, rows)["student_prefixes"]["n"] == 1
    assert "no completion has two tokens" in growth(rows[1:], rows)["teacher_prefixes"]["not measured"]
    assert "about 0" in growth([[trace(4, 0.0, 1.0)]], rows)["teacher_prefixes"]["not measured"]


def test_a_half_without_kl_counts_with_its_tokens():
    found = growth([[trace(4, 1.0, 2.0)]], [[trace(4, 1.0, 2.0)], [trace(6, 0.0, 3.0)], [trace(2, 1.5, 0.0)]])["student_prefixes"]
    assert (found["value"], found["n"]) == (pytest.approx(5 / 2.5), 3)
