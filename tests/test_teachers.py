"""What is reported of traces is what students are fed."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from raydistill.errors import RunError
from raydistill.rollout.completion import Completion, StopReason
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.verifier import Outcome
from raydistill.teachers import TraceSet, collect_traces

TASK = Arithmetic()
PROMPTS = TASK.prompts("train")[:4]


def crew(has_special: list[bool], students: bool = True) -> Any:
    """Answers right, in five tokens, or with a special token inside, in thirty."""

    def generate(prompts: Any, _: Any) -> list[list[Completion]]:
        return [
            [Completion(p.id, 0, (1,), (5,) * (30 if special else 5), (), f"#{p.answer}", StopReason.END, special, 0)]
            for p, special in zip(prompts, has_special, strict=True)
        ]

    verifier = SimpleNamespace(verify=lambda prompts, texts: [Outcome.RIGHT] * len(prompts))
    run = SimpleNamespace(calibration=SimpleNamespace(max_new_tokens=30), students=students)
    return SimpleNamespace(generate=generate, verifier=verifier, run=run, task=TASK)


def test_a_trace_with_a_special_token_is_neither_fed_nor_measured(tmp_path: Path) -> None:
    found = collect_traces(crew([False, True, False, False]), PROMPTS, 1, tmp_path / "traces.json")
    assert [trace.prompt_text for trace in found.traces] == [PROMPTS[place].text for place in (0, 2, 3)]
    assert (found.facts.accuracy, found.facts.length, found.facts.dropped) == (1.0, 5.0, 0.25)
    assert TraceSet.read(tmp_path / "traces.json") == found


def test_a_teacher_without_a_usable_trace(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="seed 3"):
        collect_traces(crew([True] * 4), PROMPTS, 3, tmp_path / "traces.json")
    assert not (tmp_path / "traces.json").exists()


def test_without_students_there_is_still_something_to_report(tmp_path: Path) -> None:
    found = collect_traces(crew([True] * 4, students=False), PROMPTS, 3, tmp_path / "traces.json")
    assert (found.traces, found.facts.length, found.facts.dropped) == ((), 30.0, 1.0)
