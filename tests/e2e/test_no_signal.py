"""A task that no completion passes, or every one: warned about once, and the job ends well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.conftest import workflow

JOBS = {
    "diagnose": (
        ["evaluation.prompts=8", "wrong_pairs=1000", "evaluation.teacher_samples=64", "evaluation.student_samples=2"],
        "all 512 completions of the teacher are wrong: the task gives no signal",
    ),
    "calibrate": (
        [
            "calibration.steps=1",
            "calibration.prompts=4",
            "calibration.samples=4",
            "evaluation.prompts=8",
            "evaluation.teacher_samples=2",
            "seeds=[1]",
            "students=null",
            "track.uri=null",
        ],
        "all 16 completions of the original teacher are wrong: the task gives no signal",
    ),
    "evaluate": (["evaluation.prompts=8", "evaluation.samples=3"], "all 32 completions of the model are wrong: the task gives no signal"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The demo's questions with answers that no completion gives."""
    rows = [{"question": f"{a}+{b}-{c}=", "answer": "123456"} for a in range(10) for b in range(10) for c in range(3)]
    rows += rows[:20]
    path = tmp_path / "never.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("job", list(JOBS))
def test_a_task_that_never_passes_is_warned_about_once(data: Path, tmp_path: Path, job: str) -> None:
    settings, warning = JOBS[job]
    ended = workflow(
        job, f"task={{kind: maths, data: {{train: {data}}}}}", *settings, "rollout.engine=transformers", "--out", str(tmp_path / "run")
    )
    assert ended.code == 0, ended.err
    assert ended.err.count(f"warning: {warning}; look at some of them") == 1
    assert ended.err.count("20 of 320 rows of") == 1


def test_a_task_that_always_passes_is_warned_about_once(data: Path, tmp_path: Path) -> None:
    checks = "[{kind: words, at_most: 1000}]"
    task = f"task={{kind: instructions, data: {{train: {data}}}, question: question, checks: {checks}}}"
    ended = workflow("evaluate", task, *JOBS["evaluate"][0], "rollout.engine=transformers", "--out", str(tmp_path / "run"))
    assert ended.code == 0, ended.err
    assert ended.err.count("warning: all 32 completions of the model are right: the task gives no signal; choose harder prompts") == 1
