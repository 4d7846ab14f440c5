"""An evaluation whose completions lie there already: what it says of them."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from raydistill import evaluation_plan
from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job
from raydistill.evaluation import EvaluationFolder, Measurement
from raydistill.progress import Console
from tests.diagnose.samples import sampled

JOB = load_job(Evaluate, Path("configs/evaluate.yaml"), ["evaluation.prompts=3", "evaluation.samples=2"])


def said(folder: Path, right: Sequence[bool], failures: int = 0) -> str:
    """`right` of two samples and the greedy completion of each of three prompts."""
    subject = evaluation_plan.check(JOB)
    there = EvaluationFolder(folder, JOB.seed)
    there.completions("greedy").parent.mkdir()
    outcomes = iter(right)
    for kind, samples in (("sampled", 2), ("greedy", 1)):
        wrote = sampled([[("#1", next(outcomes)) for _ in range(samples)] for _ in range(3)])
        there.completions(kind).write_text(replace(wrote, verifier_failures=failures).to_json())
    told = io.StringIO()
    Measurement(JOB, subject, there, Console(told)).run()
    return told.getvalue()


@pytest.mark.parametrize(
    ("right", "failures", "warning"),
    [
        ([True] * 9, 0, "warning: all 9 completions of the model are right: the task gives no signal; choose harder prompts"),
        ([False] * 9, 0, "warning: all 9 completions of the model are wrong: the task gives no signal; look at some of them"),
        ([False] * 9, 2, "warning: all 9 completions of the model are wrong, and 4 checks failed: the task gives no signal"),
        ([False] * 8 + [True], 0, ""),
    ],
)
def test_a_task_that_tells_nothing_apart_is_warned_about(tmp_path: Path, right: list[bool], failures: int, warning: str) -> None:
    told = said(tmp_path, right, failures)
    assert told.startswith(warning)
    assert told.count("warning") == bool(warning)
