"""`--dry-run` says how many measured questions training questions give away, in a line; and a system prompt for a model without turns."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raydistill import diagnosis_plan, distill_plan
from raydistill.config.diagnose import Diagnose
from raydistill.config.distill import Distill
from raydistill.config.load import load_job, load_run
from raydistill.errors import InputError
from raydistill.plan import check, show_plan

DEMO, DIAGNOSE = Path("configs/demo.yaml"), Path("configs/diagnose.yaml")
LINE = "warning: task.data: 2 of 4 report questions overlap with training questions (13 words in a row, or all words); "


@pytest.fixture
def task(tmp_path: Path) -> str:
    """Questions of single digits are words to the check: training questions repeat two of report's with other signs."""
    asked = {"report": ["1+1=", "2+2=", "3+3=", "4+4="], "tune": ["5+5="] * 1, "train": ["1-1=", "2-2=", "6+6=", "7+7="]}
    for split, questions in asked.items():
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps({"question": q, "answer": "2"}) + "\n" for q in questions))
    files = ", ".join(f"{split}: {tmp_path / split}.jsonl" for split in asked)
    return f"task={{kind: maths, data: {{{files}}}}}"


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def test_a_run_s_plan_counts_them(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = load_run(DEMO, [task, "evaluation.prompts=4", "students=null"])
    show_plan(run, check(run), Path("runs/x"))
    assert LINE in shown(capsys)


def test_a_diagnosis_s_plan_counts_them(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_job(Diagnose, DIAGNOSE, [task, "evaluation.prompts=1", "wrong_pairs=1"])
    diagnosis_plan.show(job, diagnosis_plan.check(job), Path("runs/x"))
    assert LINE in shown(capsys)


def test_a_distillation_s_plan_counts_them(task: str, capsys: pytest.CaptureFixture[str]) -> None:
    job = load_job(Distill, Path("configs/distill.yaml"), [task, "evaluation.prompts=4"])
    distill_plan.show(job, distill_plan.check(job), Path("runs/x"))
    assert LINE in shown(capsys)


@pytest.mark.parametrize("section", ["teacher", "proxy", "students.model"])
def test_a_system_prompt_for_a_model_without_a_chat_template_is_refused(section: str) -> None:
    with pytest.raises(InputError, match=rf"^{section}\.system_prompt: prompts are plain text, which has no system turn; drop it, or"):
        check(load_run(DEMO, [f"{section}.system_prompt=Be brief."]))
