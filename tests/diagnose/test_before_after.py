import numpy as np
import pytest

from raydistill.diagnose.before_after import Student, differences
from raydistill.diagnose.calibration_error import (
    Answer,
    calibration_error,
    calibration_error_difference,
    confidence_when_wrong,
    confidence_when_wrong_difference,
)
from tests.diagnose.samples import sampled


def answers(seed, prompts=40):
    rng = np.random.default_rng(seed)
    return [[Answer(float(rng.uniform()), bool(rng.uniform() < 0.5)) for _ in range(rng.integers(0, 3))] for _ in range(prompts)]


def test_differences_are_those_of_the_figures_and_turn_round():
    before, after = answers(1), answers(2)
    for of_one, of_two in ((calibration_error, calibration_error_difference), (confidence_when_wrong, confidence_when_wrong_difference)):
        found, turned = of_two(after, before), of_two(before, after)
        assert found.mean == pytest.approx(of_one(after).mean - of_one(before).mean)
        assert found.ci95 == pytest.approx((-turned.ci95[1], -turned.ci95[0]))
        same = of_two(before, before)
        assert (same.mean, same.ci95) == (pytest.approx(0), pytest.approx((0, 0)))
        assert of_two(before, [[] for _ in before]) is None


def student(rows, answers_BG):
    return Student(sampled(rows), answers_BG, {})


def test_after_minus_before_by_prompt():
    before = student([[("a a a a a a", False)], [("b", False)]], [[Answer(0.9, False)], [Answer(0.9, False)]])
    after = student([[("a b c d e", True)], [("b", False)]], [[Answer(0.9, True)], [Answer(0.4, False)]])
    found = differences(before, after)
    assert (found["score"]["value"], found["score"]["n"]) == (0.5, 2)
    assert found["repeated"]["value"] == pytest.approx(-(1 - 1 / 3) / 2)
    assert found["confidence_when_wrong"]["value"] == pytest.approx(0.4 - 0.9)
    assert found["calibration_error"]["value"] == pytest.approx((0.1 + 0.4) / 2 - 0.9)


def test_what_one_side_lacks_is_not_measured():
    right = student([[("b", True)]], [[Answer(0.9, True)]])
    assert "no wrong answer" in differences(right, right)["confidence_when_wrong"]["not measured"]
    assert "no answer" in differences(right, student([[("b", True)]], [[]]))["calibration_error"]["not measured"]
    assert "not told from the rest" in differences(right, student([[("b", True)]], None))["calibration_error"]["not measured"]
