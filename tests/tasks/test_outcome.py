"""Graded outcomes, from the check to what a step, an evaluation and a report make of them; a task with right answers is as it was."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.batch import StepBatch
from raydistill.config.knob import KnobConfig
from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.measure import measure
from raydistill.report.card import report_card
from raydistill.report.words import claims_in_words
from raydistill.reward.advantage import STD_EPSILON
from raydistill.rollout.completion import Completion, Sampling, StopReason, TokenPrompt
from raydistill.tasks.outcome import Checked, Graded, Outcome
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.verifier import Verifier
from tests.report.synthetic_facts import outcomes, run_config, some_facts

PROMPT = Prompt("p", "?", "", "")
GRADED_TASK = {
    "task": {"kind": "instructions", "data": {"train": "unread.jsonl"}, "checks": [{"kind": "json"}]},
    "knob": {"eta": 1.0, "cal_on": "all"},
}


class Reads:
    """The reward is the number that a completion is."""

    name = "reads"

    def prompts(self, split: Split) -> list[Prompt]:
        return [PROMPT]

    def verify(self, prompt: Prompt, completion: str) -> bool | float:
        return completion == "True" if completion in ("True", "False") else float(completion)

    def style(self, completion: str) -> str:
        return "high" if completion > "0.5" else "low"


def completion(text: str, has_special: bool = False) -> Completion:
    return Completion("p", 0, (1,), (2, 3), (-1.0, -1.0), text, StopReason.END, has_special, weights_version=0)


def test_a_reward_arrives_as_it_was_and_what_is_none_fails_the_check() -> None:
    given_ = ["0.1", "0", "1", "True", "False", "nan", "inf", "-0.5", "1.5", "?"]
    with Verifier(Reads(), 2, 10.0) as verifier:
        found = verifier.verify([PROMPT] * len(given_), given_)
    assert found == [Graded(0.1), Graded(0.0), Graded(1.0), Outcome.RIGHT, Outcome.WRONG, *[Outcome.CRASHED] * 5]


@given(st.lists(st.floats(0, 1, width=32) | st.sampled_from([Outcome.TIMEOUT, Outcome.CRASHED]), min_size=4, max_size=4))
def test_the_advantage_of_a_group_is_of_its_rewards_and_failed_checks_leave_it(rewards: list[float | Outcome]) -> None:
    checked: list[Checked] = [one if isinstance(one, Outcome) else Graded(one) for one in rewards]
    batch = StepBatch([PROMPT] * 4, [completion("a")] * 4, samples=4, outcomes=checked)
    batch.compute_advantages(KnobConfig(cal_on="all"))
    known = [one for one in rewards if not isinstance(one, Outcome)]
    std = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
    expected = [0.0 if isinstance(one, Outcome) or not std else (one - np.mean(known)) / (std + STD_EPSILON) for one in rewards]
    assert batch.advantages == pytest.approx(expected, abs=1e-6)
    assert len(batch.kept()) == len(known)
    assert np.nanmin(batch.rewards()) >= 0
    assert all(map(math.isfinite, batch.advantages))


def test_scores_are_mean_rewards_with_zeros_for_failed_checks_and_special_tokens(tmp_path: Path) -> None:
    def generate(prompts: object, sampling: Sampling) -> list[list[Completion]]:
        if sampling.greedy:
            return [[completion("0.75")]]
        return [[completion("0.25"), completion("1"), completion("?"), completion("0.5", has_special=True)]]

    with Verifier(Reads(), 1, 10.0) as verifier:
        found = measure(generate, Reads(), verifier, [PROMPT], [TokenPrompt("p", (1,))], samples=4, max_new_tokens=9, seed=1)
    assert found.sampled_BG == ((0.25, 1.0, 0.0, 0.0),)
    assert found.greedy_B == (0.75,)
    assert (found.style_accuracy["low"], found.style_accuracy["high"], found.verifier_failures) == (pytest.approx(0.125), 0.5, 1)
    (tmp_path / "evaluation.json").write_text(found.to_json())
    assert Evaluation.read(tmp_path / "evaluation.json") == found


def test_right_and_wrong_stay_true_and_false_in_files() -> None:
    def generate(prompts: object, sampling: Sampling) -> list[list[Completion]]:
        return [[completion("True"), completion("False"), completion("?")][: sampling.samples]]

    with Verifier(Reads(), 1, 10.0) as verifier:
        found = measure(generate, Reads(), verifier, [PROMPT], [TokenPrompt("p", (1,))], samples=3, max_new_tokens=9, seed=1)
    assert json.loads(found.to_json())["sampled_BG"] == [[True, False, False]]
    assert all(type(one) is bool for row in found.sampled_BG for one in row)


def _halved(one: Evaluation) -> Evaluation:
    return replace(one, sampled_BG=tuple(tuple(x / 2 for x in row) for row in one.sampled_BG), greedy_B=tuple(x / 2 for x in one.greedy_B))


def test_a_report_on_rewards_is_that_on_right_answers_in_another_unit() -> None:
    """Rewards of 0 and 0.5 in the place of wrong and right: means and differences halve, ratios and claims on differences stay."""
    facts = some_facts(1.0)
    teacher = replace(
        facts.teacher,
        original=_halved(facts.teacher.original),
        calibrated=tuple(map(_halved, facts.teacher.calibrated)),
        traces=tuple(replace(one, accuracy=one.accuracy / 2) for one in facts.teacher.traces),
    )
    students = tuple(
        replace(one, control=tuple(map(_halved, one.control)), calibrated=tuple(map(_halved, one.calibrated))) for one in facts.students
    )
    graded = replace(
        facts,
        run=run_config(**GRADED_TASK),
        teacher=teacher,
        base=_halved(facts.base or outcomes(0.1, 0.1, 1)),
        sft_gold=tuple(map(_halved, facts.sft_gold)),
        students=students,
    )
    right, reward = report_card(facts), report_card(graded)
    assert "graded" not in right
    assert reward["graded"] is True
    for before, after in zip(right["students"], reward["students"], strict=True):
        assert after["calibrated"]["sampled"]["mean"] == pytest.approx(before["calibrated"]["sampled"]["mean"] / 2)
        assert after["ratio"] == pytest.approx(before["ratio"])
    assert reward["claims"]["distillable"] == right["claims"]["distillable"]
    json.dumps(reward, allow_nan=False)
    bad = replace(graded, teacher=replace(teacher, traces=tuple(replace(one, accuracy=0.1) for one in teacher.traces)))
    assert "mean reward of 0.100" in claims_in_words(report_card(bad))[1].sentence
