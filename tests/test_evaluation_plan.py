"""What of an evaluation is checked, and said, before it starts."""

from __future__ import annotations

import bisect
import json
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import pytest

from raydistill import evaluation_plan
from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job
from raydistill.errors import InputError, RunError
from raydistill.evaluate.options import score_options
from raydistill.models.trio import demo_model
from raydistill.scoring.score import Scorer, ScorerSpec
from raydistill.tasks.make import make_task

CONFIG, CONTEXT = Path("configs/evaluate.yaml"), 128
ALONE = ["evaluation={samples: 0, greedy: false, options: {}}"]
"""Nothing generated."""


def job(path: Path, rows: list[dict[str, Any]], *overrides: str, kind: str = "choice") -> Evaluate:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_job(Evaluate, CONFIG, [f"task={{kind: {kind}, data: {{train: {path}}}}}", *overrides])


def questions(count: int, option: str = "3", **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"{n}+1=", "options": [option, "4"], "answer": "B", "level": n % 12} | more for n in range(10, 10 + count)]


def refused(path: Path, length: int, *overrides: str) -> str:
    """What is said against a first option of so many digits, each a token to the demo's models; nothing where it is let through."""
    try:
        evaluation_plan.check(job(path, questions(40, "7" * length), *ALONE, *overrides))
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("continuations", ["texts", "letters"])
def test_what_is_let_through_is_what_the_scorer_takes(tmp_path: Path, continuations: Literal["texts", "letters"]) -> None:
    """An option stands in its prompt, too: with texts the longest that fits is about half as long."""
    file, override = tmp_path / "a.jsonl", f"evaluation.options.continuations={continuations}"
    longest = bisect.bisect(range(1, CONTEXT), "", key=lambda length: refused(file, length, override))
    assert (longest > CONTEXT // 2) == (continuations == "letters")
    scorer = Scorer(ScorerSpec(str(demo_model("teacher"))))
    for length in (longest, longest + 1):
        task = make_task(job(file, questions(40, "7" * length)).task)
        with nullcontext() if length == longest else pytest.raises(RunError, match="does not fit"):
            score_options(task.prompts("report")[:1], scorer.score, continuations)
    message = r"^evaluation\.options: the longest prompt with an option, 129 tokens, is more than the context of model\.model \(128\); "
    assert re.match(message if continuations == "letters" else message.replace("129", "1(29|30)"), refused(file, longest + 1, override))


def test_what_is_no_level_or_category_is_refused_by_its_field(tmp_path: Path) -> None:
    rows = questions(200, gold="x")
    assert {one.group for one in evaluation_plan.check(job(tmp_path / "a.jsonl", rows, "task.group=level")).prompts} == set(
        map(str, range(12))
    )
    evaluation_plan.check(job(tmp_path / "a.jsonl", rows, "task.group=question", "evaluation.prompts=30"))
    whole = ["task.data.report={source: %s, group: question}" % (tmp_path / "b.jsonl")]
    (tmp_path / "b.jsonl").write_text("".join(json.dumps(row) + "\n" for row in questions(101)))
    with pytest.raises(InputError, match=r"^task\.data\.report\.group: its column has 101 different values in 101 prompts, more than 100"):
        evaluation_plan.check(job(tmp_path / "a.jsonl", questions(300)[150:], *whole))
    with pytest.raises(InputError, match=r"^task\.group: \S+ has no column 'levl'; did you mean 'level'"):
        evaluation_plan.check(job(tmp_path / "a.jsonl", rows, "task.group=levl"))


def test_a_plan_says_how_many_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for override, said in (("task.group=level", "completions each; 12 groups"), ("task.group=null", "completions each\n")):
        each = job(tmp_path / "a.jsonl", questions(200), override)
        evaluation_plan.show(each, evaluation_plan.check(each), Path("runs/x"))
        assert said in capsys.readouterr().out.replace("\n ", " ")
