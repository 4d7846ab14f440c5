"""What a step makes of its scores."""

from dataclasses import replace

import numpy as np
import pytest

from raydistill.batch import StepBatch
from raydistill.rollout.completion import Completion, StopReason
from raydistill.scoring.score import SequenceScore
from raydistill.students.data import Trace
from raydistill.tasks.prompt import Prompt
from raydistill.tasks.verifier import Outcome


def completion(text: str, stop: StopReason = StopReason.END) -> Completion:
    return Completion("p", 0, (1,), (2, 3), (-1.0, -1.0), text, stop, has_special=False, weights_version=0)


@pytest.fixture
def batch() -> StepBatch:
    prompts = [Prompt("p", "1+1=", "2", "2")] * 4
    completions = [completion("ab"), completion("abcd"), completion("a", StopReason.LENGTH), completion("b")]
    made = StepBatch(prompts, completions, samples=2, outcomes=[Outcome.RIGHT, Outcome.RIGHT, Outcome.RIGHT, Outcome.WRONG])
    made.proxy_scores = {0: SequenceScore(-3.0, 3, 2, -0.5), 1: SequenceScore(-8.0, 4, 4, -1.5)}
    made.denominator_scores = {0: SequenceScore(-1.0, 2, 2, -0.25), 1: SequenceScore(-4.0, 2, 4, -0.25)}
    return made


def test_truncated_and_wrong_completions_take_no_part(batch: StepBatch) -> None:
    assert batch.calibrated(only_right=True).tolist() == [[True, True], [False, False]]
    assert batch.calibrated(only_right=False).tolist() == [[True, True], [False, True]]
    assert batch.texts(batch.calibrated(only_right=False)) == (["1+1="] * 3, ["ab", "abcd", "b"])


@pytest.mark.parametrize(
    ("normalization", "ends_count", "expected"),
    [
        ("per_byte", False, [-1.0, -1.0]),
        ("per_byte", True, [-1.125, -1.3125]),
        ("per_token", False, [-0.5, 0.0]),
        ("per_token", True, [-3.5 / 4 + 1.25 / 3, -9.5 / 5 + 4.25 / 3]),
        ("per_sequence", False, [-2.0, -4.0]),
        ("per_sequence", True, [-2.25, -5.25]),
    ],
)
def test_gaps_in_every_unit_with_and_without_the_end(batch: StepBatch, normalization: str, ends_count: bool, expected: list[float]) -> None:
    batch.ends_count = ends_count
    gaps_BG = batch.gaps(normalization)
    assert gaps_BG[0] == pytest.approx(expected)
    assert np.isnan(gaps_BG[1]).all()


def test_the_end_of_the_turn_is_logged_apart(batch: StepBatch) -> None:
    assert batch.end_gap() == pytest.approx(((-0.5 + 0.25) + (-1.5 + 0.25)) / 2)
    batch.denominator_scores = {}
    assert batch.end_gap() is None
    assert batch.gaps("per_sequence")[0] == pytest.approx([-3.0, -8.0])  # no denominator: the ablation


def test_without_a_scored_completion_everything_is_nan(batch: StepBatch) -> None:
    batch.proxy_scores = batch.denominator_scores = {}
    assert np.isnan(batch.gaps("per_byte")).all()


@pytest.mark.parametrize(("worst_for", "expected"), [(None, [0.0, -0.5]), (1.0, [-1.0, -1.0]), (-1.0, [1.0, 0.0])])
def test_shadows_take_the_place_of_the_proxy(batch: StepBatch, worst_for: float | None, expected: list[float]) -> None:
    """The first scores as the proxy did, -1 and -1 a byte; the other finds both texts more natural."""
    batch.shadow_scores = [batch.proxy_scores, {0: SequenceScore(1.0, 3, 2, -0.5), 1: SequenceScore(-4.0, 4, 4, -1.5)}]
    batch.proxy_scores, batch.worst_for = {}, worst_for
    gaps_BG = batch.gaps("per_byte")
    assert gaps_BG[0] == pytest.approx(expected)
    assert np.isnan(gaps_BG[1]).all()
    assert batch.end_gap() == pytest.approx(((-0.5 + 0.25) + (-1.5 + 0.25)) / 2)


def test_students_are_fed_right_and_wrong_completions_but_no_special_token(batch: StepBatch) -> None:
    batch.completions[1] = replace(batch.completions[1], has_special=True)
    assert batch.traces() == [Trace("1+1=", "ab", True), None, Trace("1+1=", "a", False), Trace("1+1=", "b", True)]


def test_an_answered_completion_has_no_end_to_count_and_none_to_learn(batch: StepBatch) -> None:
    batch.completions[1] = replace(batch.completions[1], stop=StopReason.ANSWERED)
    batch.ends_count = True
    assert batch.calibrated(only_right=True).tolist() == [[True, True], [False, False]]
    assert batch.gaps("per_sequence")[0] == pytest.approx([-2.25, -4.0])
    assert batch.end_gap() == pytest.approx(-0.5 + 0.25)
    assert [trace.ended for trace in batch.traces() if trace] == [True, False, False, True]
