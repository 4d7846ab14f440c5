"""Data sets whose own solutions do not pass their own check."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from raydistill.config.task import TaskConfig
from raydistill.tasks.gold_check import LOOKED_AT
from raydistill.tasks.make import make_task, task_warnings


def found(folder: Path, rows: Sequence[dict[str, Any]], **fields: Any) -> tuple[str, ...]:
    """Warnings of a task that reports on these rows, and trains on twenty like the first; of those two go to tune."""
    data = {"train": [{**rows[0], "question": f"train {n}"} for n in range(20)], "report": rows}
    for split, some in data.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    config = {"kind": "maths", "gold": "gold", "data": {split: str(folder / f"{split}.jsonl") for split in data}} | fields
    task = make_task(TypeAdapter(TaskConfig).validate_python(config))  # type: ignore[arg-type]
    task.prompts("report")
    return task_warnings(task)


def sums(count: int, gold: str) -> list[dict[str, Any]]:
    return [{"question": f"{n} + 1?", "answer": str(n + 1), "gold": gold.format(n + 1)} for n in range(count)]


def test_solutions_that_pass_are_not_spoken_of(tmp_path: Path) -> None:
    words = [{"question": f"The capital {n}?", "answer": "Paris", "gold": "It is known.\n#### Paris"} for n in range(3)]
    assert found(tmp_path, [*sums(5, "It follows.\n#### {}"), *words]) == ()
    assert found(tmp_path, sums(5, "It is 7."), gold=None) == ()


def test_those_that_do_not_are_counted_with_one_that_shows_why(tmp_path: Path) -> None:
    (warning,) = found(tmp_path, [*sums(4, "#### {}"), *[row | {"question": f"again {row['question']}"} for row in sums(3, "It is\n{}0.")]])
    assert warning.startswith("task.gold: 3 of 9 gold completions do not pass the task's own check, such as one that ends in 'It is\\n")
    assert "\n" not in warning


def test_no_more_than_a_few_are_looked_at_and_none_for_ever(tmp_path: Path) -> None:
    (warning,) = found(tmp_path, sums(LOOKED_AT + 20, "It is {}0."))
    assert warning.startswith(f"task.gold: {LOOKED_AT} of {LOOKED_AT} gold")
    tower = [*sums(3, "#### {}"), {"question": "How many?", "answer": "18", "gold": "\\boxed{9^{9^{9^{9^{9}}}} + 1}"}]
    assert found(tmp_path, tower)[0].startswith("task.gold: 1 of 6 gold")


@pytest.mark.parametrize(
    "fields", [{"kind": "choice"}, {"kind": "instructions", "question": "question", "checks": [{"kind": "words", "at_most": 1}]}]
)
def test_other_tasks(tmp_path: Path, fields: dict[str, Any]) -> None:
    """Choices are checked likewise; a reference response does not grade."""
    rows = [{"question": f"{n}?", "options": ["red", "blue"], "answer": "B", "gold": "Blue, of course."} for n in range(4)]
    warnings = found(tmp_path, rows, **fields)
    assert [one.partition(",")[0] for one in warnings] == (
        ["task.gold: 6 of 6 gold completions do not pass the task's own check"] if fields["kind"] == "choice" else []
    )
