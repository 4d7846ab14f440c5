import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.diagnose.calibration_error import (
    Answer,
    calibrated_when_wrong,
    calibration_error,
    confidence_when_wrong,
    noise_floor,
    overconfidence,
    reliability,
)

answers = st.builds(Answer, st.floats(0, 1), st.booleans())


def brute_force(flat, bins=10):
    error = 0.0
    for place in range(bins):
        held = [a for a in flat if place / bins <= a.confidence < (place + 1) / bins or (a.confidence == 1 and place == bins - 1)]
        if held:
            error += abs(sum(a.confidence for a in held) - sum(a.right for a in held)) / len(flat)
    return error


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(answers, max_size=4), min_size=1, max_size=8).filter(any))
def test_is_that_of_a_loop(rows):
    flat = [answer for row in rows for answer in row if not any(abs(answer.confidence * 10 - k) < 1e-9 for k in range(1, 10))]
    if flat:
        assert calibration_error([flat]).mean == pytest.approx(brute_force(flat), abs=1e-12)
    error = calibration_error(rows).mean
    assert abs(overconfidence(rows).mean) <= error + 1e-12  # the bins' gaps can only balance
    assert -1e-12 <= error <= 1
    whole = [answer for row in rows for answer in row]
    assert error == pytest.approx(calibration_error([whole]).mean, abs=1e-12)  # however answers lie in prompts
    assert sum(one.n for one in reliability(whole)) == len(whole)


def test_always_sure_and_right_seven_times_in_ten():
    rows = [[Answer(1.0, right)] for right in [True] * 7 + [False] * 3]
    assert calibration_error(rows).mean == pytest.approx(0.3)
    assert confidence_when_wrong(rows).mean == 1.0
    assert confidence_when_wrong(rows).n == 3
    assert reliability([a for row in rows for a in row])[0].high == 1.0


def test_a_perfect_model_is_at_the_noise_floor():
    rng = np.random.default_rng(2)
    sure = rng.uniform(size=(200, 500))
    sets = [[Answer(c, bool(u < c)) for c, u in zip(row, rng.uniform(size=500), strict=True)] for row in sure]
    errors = [calibration_error([[a] for a in one]).mean for one in sets]
    assert np.mean(errors) == pytest.approx(np.mean([noise_floor([[a] for a in one]) for one in sets[:40]]), rel=0.05)


def enumerated(rows, bins=10):
    """The expected error over all outcomes; answers of a prompt with one text are right below a common uniform number."""
    groups = [[a for a in row if a.text == text] for row in rows for text in sorted({a.text for a in row})]
    cases = []
    for group in groups:
        edges = sorted({0.0, 1.0, *(a.confidence for a in group)})
        cases.append(
            [(high - low, [replace(a, right=(low + high) / 2 < a.confidence) for a in group]) for low, high in itertools.pairwise(edges)]
        )
    return sum(
        math.prod(weight for weight, _ in case) * brute_force([a for _, group in case for a in group], bins)
        for case in itertools.product(*cases)
    )


@pytest.mark.parametrize(
    "rows",
    [
        [[Answer(0.99, True)]],
        [[Answer(0.35, False)], [Answer(0.38, True)], [Answer(0.95, True)]],
        [[Answer(0.72, True, "a")] * 3 + [Answer(0.15, False, "b")], [Answer(0.78, True, "a")]],
        [[Answer(0.72, True, "a"), Answer(0.33, True, "a")], [Answer(0.75, True, "a"), Answer(0.75, True, "b")]],
        [[], [Answer(1.0, True), Answer(0.0, False)]],
    ],
)
def test_the_noise_floor_is_that_of_all_outcomes(rows):
    assert noise_floor(rows) == pytest.approx(enumerated(rows), abs=0.002)
    assert noise_floor(rows) == noise_floor(rows)
    assert enumerated([[Answer(0.99, True)]]) == pytest.approx(0.0198)


def test_the_same_answer_again_does_not_lower_the_floor():
    rows = [[Answer(0.7, True, "4")] for _ in range(20)]
    assert noise_floor([row * 16 for row in rows]) == pytest.approx(noise_floor(rows), rel=0.05)
    others = [[Answer(0.7, True, str(at)) for at in range(16)] for _ in range(20)]
    assert noise_floor(others) == pytest.approx(noise_floor(rows) / 4, rel=0.05)


@pytest.mark.parametrize("prompts", [12, 40])
def test_a_perfect_model_with_identical_answers_is_not_called_miscalibrated(prompts):
    rng = np.random.default_rng(5)
    alarms, above = 0, 0
    for _ in range(100):
        sure = rng.uniform(size=prompts)
        rows = [[Answer(float(c), bool(rng.uniform() < c), "4")] * 8 for c in sure]
        error, floor = calibration_error(rows), noise_floor(rows)
        above += error.mean > floor
        alarms += error.ci95[0] > floor + 0.05
    assert alarms <= 5
    assert 25 <= above <= 75  # a floor of independent answers would be below nearly all


def test_a_hundred_thousand_answers_are_few():
    rng = np.random.default_rng(3)
    rows = [[Answer(float(c), True, str(at % 3)) for at, c in enumerate(row)] for row in rng.uniform(size=(10_000, 10))]
    started = time.process_time()
    assert 0 < noise_floor(rows) < 0.02
    assert time.process_time() - started < 20


def test_no_answer_has_no_floor():
    with pytest.raises(ValueError, match="no answer"):
        noise_floor([[]])


def test_without_a_wrong_answer_there_is_no_confidence_when_wrong():
    assert confidence_when_wrong([[Answer(0.9, True)]]) is None
    with pytest.raises(ValueError, match="denominator"):
        calibration_error([[]])


def test_a_calibrated_model_s_confidence_on_wrong_answers_is_that_of_many_draws():
    rng = np.random.default_rng(2)
    sure = rng.beta(4, 2, 300)
    rows = [[Answer(float(one), True) for one in sure[at : at + 3]] for at in range(0, 300, 3)]
    drawn = [[Answer(float(one), bool(rng.random() < one)) for one in np.tile(sure, 2000)]]
    assert calibrated_when_wrong(rows) == pytest.approx(confidence_when_wrong(drawn).mean, abs=3e-3)
    assert calibrated_when_wrong([[Answer(0.7, True)], [Answer(0.7, False)] * 3]) == pytest.approx(0.7)


@given(st.lists(st.lists(answers, max_size=4), max_size=8))
def test_it_lies_between_the_confidences_and_is_none_where_none_may_be_wrong(rows):
    flat = [answer.confidence for row in rows for answer in row]
    found = calibrated_when_wrong(rows)
    assert (found is None) == all(one == 1 for one in flat)
    assert found is None or min(flat) - 1e-9 <= found <= max(flat) + 1e-9
