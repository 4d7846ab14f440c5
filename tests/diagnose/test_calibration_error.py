import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raydistill.diagnose.calibration_error import Answer, calibration_error, confidence_when_wrong, noise_floor, reliability

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
    assert np.mean(errors) == pytest.approx(np.mean([noise_floor(one) for one in sets]), rel=0.05)


def test_without_a_wrong_answer_there_is_no_confidence_when_wrong():
    assert confidence_when_wrong([[Answer(0.9, True)]]) is None
    with pytest.raises(ValueError, match="denominator"):
        calibration_error([[]])
