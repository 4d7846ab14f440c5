"""Tasks whose completions are better or worse, through the jobs as a user calls them: by rules, and by a reward model in its actor."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest

from raydistill.evaluate.evaluation import Evaluation
from raydistill.tasks.arithmetic import Arithmetic
from tests.e2e.conftest import TINY, metrics, report, workflow
from tests.reward.small_reward_model import save_nan_model, save_reward_model

RULES = "[{kind: matches, pattern: '#[0-9]$'}, {kind: words, at_most: 6}, {kind: case, case: lower}]"
"""The demo's models answer with two steps and `#` with a digit; ciphers have letters, other answers have none."""

job = partial(workflow, timeout=400)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts that the demo's models can read."""
    path = tmp_path_factory.mktemp("data") / "prompts.jsonl"
    rows = [{"instruction": prompt.text, "response": prompt.gold} for prompt in Arithmetic().prompts("train")[:400]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(data: Path, grading: str) -> str:
    return f"task={{kind: instructions, data: {{train: {data}}}, gold: response, {grading}}}"


@pytest.fixture(scope="module")
def calibrated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """By a reward model; two kinds of students, which share its actor."""
    root = tmp_path_factory.mktemp("graded")
    grading = f"reward: {{model: {save_reward_model(root / 'reward')}, scale: 2}}"
    methods = "students.methods=[{method: seqkd, samples: 32, steps: 4}]"
    ended = job("calibrate", asked(data, grading), "knob.cal_on=all", "knob.eta=1", *TINY, methods, "--out", str(root / "run"))
    assert ended.code == 0, ended.err
    return root / "run"


def test_a_reward_model_drives_a_calibration(calibrated: Path) -> None:
    rows = metrics(calibrated)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert all(0 < row["task_reward"] < 1 for row in rows)
    assert len({row["task_reward"] for row in rows}) == 4
    assert all(row["cal_reward"] is not None and row["verifier_failures"] == 0 for row in rows)


def test_scores_and_students_are_mean_rewards(calibrated: Path) -> None:
    card = report(calibrated)
    assert card["graded"] is True
    control, own = (card["students"][0][who]["sampled"]["mean"] for who in ("control", "calibrated"))
    for mean in (control, own, card["teacher"]["original"]["sampled"]["mean"], card["teacher"]["traces"]["accuracy"]):
        assert 0 < mean < 1
    assert card["students"][0]["ratio"] == pytest.approx(own / control)
    assert set(card["claims"]) == {"distillable", "collapse", "teacher_kept"}
    (student,) = (calibrated / "students").glob("seqkd-1/evaluation.json")
    rewards = [value for row in Evaluation.read(student).sampled_BG for value in row]
    assert len(set(rewards)) > 2
    assert all(0 <= value <= 1 for value in rewards)


def test_the_page_says_mean_reward(calibrated: Path) -> None:
    page = (calibrated / "report.html").read_text()
    assert "mean reward" in page
    assert "share of right answers" not in page.lower()


@pytest.mark.parametrize("graded_by", ["rules", "model"])
def test_a_diagnosis_has_mean_rewards_and_says_what_needs_right_answers(data: Path, tmp_path: Path, graded_by: str) -> None:
    grading = f"checks: {RULES}" if graded_by == "rules" else f"reward: {{model: {save_reward_model(tmp_path / 'reward')}}}"
    folder = tmp_path / "run"
    ended = job("diagnose", asked(data, grading), "evaluation.prompts=8", "rollout.engine=transformers", "--out", str(folder))
    assert ended.code == 0, ended.err
    found = json.loads((folder / "diagnosis.json").read_text())
    teacher = found["score"]["teacher"]
    assert teacher["unit"] == "mean reward"
    assert 0 < teacher["value"] < 1
    assert found["traps"]["gap"]["value"] > 0
    assert "better or worse" in found["traps"]["gap"]["wrong_trace_preference"]["not measured"]
    assert "better or worse" in found["symptoms"]["overconfident_hallucination"]["not measured"]
    assert "mean reward" in (folder / "diagnosis.html").read_text()


def test_a_reward_model_that_gives_no_number_is_counted_and_named_as_the_cause(data: Path, tmp_path: Path) -> None:
    grading = f"reward: {{model: {save_nan_model(tmp_path / 'reward')}}}"
    settings = ["evaluation.prompts=4", "evaluation.student_samples=2", "rollout.engine=transformers", "gradient_probe=null"]
    ended = job("diagnose", asked(data, grading), *settings, "--out", str(tmp_path / "run"))
    assert ended.code == 0, ended.err
    found = json.loads((tmp_path / "run" / "diagnosis.json").read_text())
    assert found["score"]["teacher"]["value"] == found["score"]["student"]["value"] == 0
    assert found["verifier_failures"] == {
        "teacher": {"completions": 16, "continuations": 0},
        "student": {"completions": 8, "continuations": 0},
    }
    assert "all 8 completions of the student are wrong, and 8 checks failed: the task gives no signal; look at why they did" in ended.err
    said = "count as wrong: 16 of the teacher's completions, and 0 of its continuations"
    assert said in ended.out
    assert said.replace("'", "&#39;") in (tmp_path / "run" / "diagnosis.html").read_text()


@pytest.mark.parametrize(
    ("grading", "more", "names"),
    [
        ("reward: {model: 'demo:proxy'}", [], ["task.reward.model", "no sequence classifier"]),
        ("checks: [{kind: rhymes}]", [], ["task.checks", "rhymes"]),
        (f"checks: {RULES}", ["task.question=instructon"], ["task.question", "did you mean 'instruction'"]),
        (f"checks: {RULES}", ["knob.cal_on=right"], ["knob.cal_on", "'all'"]),
    ],
)
def test_bad_input_is_one_line(data: Path, tmp_path: Path, grading: str, more: list[str], names: list[str]) -> None:
    ended = job("calibrate", asked(data, grading), "knob.cal_on=all", *more, "--out", str(tmp_path / "run"), "--dry-run")
    assert ended.code == 2, ended.err
    (line,) = ended.err.strip().splitlines()
    assert all(name in line for name in names), line


def test_a_dry_run_shows_the_reward_model_in_the_verifiers_place(data: Path, tmp_path: Path) -> None:
    grading = f"reward: {{model: {save_reward_model(tmp_path / 'reward')}}}"
    ended = job("calibrate", asked(data, grading), "knob.cal_on=all", "--out", str(tmp_path / "run"), "--dry-run")
    assert ended.code == 0, ended.err
    assert "grades completions" in ended.out
    assert "checks answers" not in ended.out
    assert not os.path.exists(tmp_path / "run")
