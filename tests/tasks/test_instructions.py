"""Open-ended instructions: what is read, what grades them, and what is said of data that cannot be used."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from raydistill.config.load import parse_run
from raydistill.config.task import InstructionsTask, is_graded
from raydistill.errors import InputError
from raydistill.tasks.instructions import Instructions
from raydistill.tasks.make import make_task
from raydistill.tasks.outcome import Graded, Outcome
from raydistill.tasks.verifier import Verifier
from tests.real import shared

SHORT = {"kind": "words", "at_most": 3}
LOWER = {"kind": "case", "case": "lower"}
GIANT = "y" * 3 * 2**20
GIANT_CHECK = {"kind": "contains", "keywords": [GIANT]}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def dolly(count: int, **more: object) -> list[dict[str, object]]:
    return [
        {"instruction": f"Say {n}.", "context": "As a word." if n % 2 else "", "response": f"It is {n}.", "category": "qa"} | more
        for n in range(count)
    ]


def task(source: str, **fields: Any) -> Instructions:
    made = make_task(InstructionsTask.model_validate({"kind": "instructions", "data": {"train": source}} | fields))
    assert isinstance(made, Instructions)
    return made


def test_dolly_has_an_instruction_a_context_and_a_response(tmp_path: Path) -> None:
    made = task(write(tmp_path / "a.jsonl", dolly(40)), context="context", gold="response", checks=[SHORT])
    found = {split: made.prompts(split) for split in ("train", "tune", "report")}
    assert {split: len(prompts) for split, prompts in found.items()} == {"train": 26, "tune": 4, "report": 10}
    texts = {prompt.text: prompt for prompts in found.values() for prompt in prompts}
    assert set(texts) == {f"Say {n}." + ("\n\nAs a word." if n % 2 else "") for n in range(40)}
    assert texts["Say 2."].gold == "It is 2."
    assert {prompt.answer for prompt in texts.values()} == {""}


def test_of_turns_the_first_is_asked(tmp_path: Path) -> None:
    source = write(tmp_path / "a.jsonl", [{"turns": [f"First {n}?", "Then?"]} for n in range(20)])
    assert {prompt.text for prompt in task(source, question="turns", checks=[SHORT], limit=3).prompts("train")} < {
        f"First {n}?" for n in range(20)
    }


@pytest.mark.parametrize("written", [json.dumps([LOWER, SHORT]), [LOWER, SHORT]])
def test_a_rows_checks_come_on_top_of_the_tasks(tmp_path: Path, written: object) -> None:
    """As JSON or as a list, in which `datasets` gives every check the fields of all others, as nulls."""
    made = task(
        write(tmp_path / "a.jsonl", dolly(20, rules=written)), checks=[{"kind": "ends_with", "text": "."}, SHORT], checks_column="rules"
    )
    (prompt, *_) = made.prompts("train")
    completions = ["it is one.", "It is one.", "it is number one", "It IS number One", "it is the one."]
    with Verifier(pickle.loads(pickle.dumps(made)), 1, 10.0) as verifier:
        outcomes = verifier.verify([prompt] * len(completions), completions)
    assert outcomes == [Graded(1.0), Graded(0.75), Graded(0.25), Graded(0.0), Graded(0.5)]


def test_a_catastrophic_expression_ends_at_the_time_limit(tmp_path: Path) -> None:
    evil = {"kind": "matches", "pattern": "(a+)+$"}
    made = task(write(tmp_path / "a.jsonl", dolly(20)), checks=[evil])
    (prompt, *_) = made.prompts("train")
    start = time.monotonic()
    with Verifier(made, 1, 1.0) as verifier:
        assert verifier.verify([prompt] * 3, ["aaa", "a" * 64 + "b", "b"]) == [Graded(1.0), Outcome.TIMEOUT, Graded(0.0)]
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("rows", "fields", "says"),
    [
        (dolly(20), {"question": "instructions"}, "task.question: .* has no column 'instructions'; did you mean 'instruction'"),
        (dolly(20), {"context": "input"}, "task.context: .* has no column 'input'"),
        (dolly(20), {"gold": "answer"}, "task.gold: .* has no column"),
        (dolly(20), {"checks_column": "rules"}, "task.checks_column: .* has no column 'rules'"),
        (dolly(20, response=None), {"gold": "response"}, "task.gold: row 1 of .* has nothing"),
        (dolly(20, instruction=" "), {}, "task.question: row 1 of .* has nothing"),
        (dolly(20, instruction=[]), {}, "task.question: row 1 of .* has no(thing| first turn)"),
        (dolly(20, instruction=3), {}, "task.question: row 1 of .* holds int"),
        (dolly(20, rules="[{"), {"checks_column": "rules"}, "task.checks_column: row 1 of .* is not a list of checks as JSON"),
        (dolly(20, rules='{"kind": "json"}'), {"checks_column": "rules"}, "row 1 of .* is not a list of checks as JSON .it is dict"),
        (dolly(20, rules='[{"kind": "rhymes"}]'), {"checks_column": "rules"}, "row 1 of .*rhymes"),
        (dolly(20, rules='[{"kind": "matches", "pattern": "("}]'), {"checks_column": "rules"}, "not a regular expression"),
        (dolly(20, rules="[]"), {"checks_column": "rules", "checks": []}, "row 1 of .* has no checks"),
        (dolly(20, rules="[" * 100_000), {"checks_column": "rules"}, "row 1 of .* is not a list of checks as JSON"),
        (
            dolly(9, instruction=GIANT),
            {},
            "^task.question: row 1 of .* has a text of 3,145,728 characters, more than 1,048,576; leave it out",
        ),
        (dolly(9, context=GIANT), {"context": "context"}, "^task.context: row 1 of .* has a text of 3,145,728 characters"),
        (
            dolly(9, rules=[GIANT_CHECK]),
            {"checks_column": "rules"},
            r"^task.checks_column: row 1 of .* has a text of 3,145,7\d\d characters",
        ),
        (dolly(9, rules=json.dumps([GIANT_CHECK])), {"checks_column": "rules"}, r"^task.checks_column: row 1 of .* has a text of 3,145,7"),
        (dolly(1), {}, "no prompt is left"),
    ],
)
def test_data_that_cannot_be_used_is_said_in_one_line(tmp_path: Path, rows: list[dict], fields: dict, says: str) -> None:
    source = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=says) as error:
        task(source, **({"checks": [SHORT]} | fields)).prompts("train")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "nothing grades a completion"),
        ({"checks": [SHORT], "reward": {"model": "m"}}, "reward: given beside checks"),
        ({"checks": [{"kind": "rhymes"}]}, "task.checks.*rhymes"),
        ({"checks": [{"kind": "words", "at_lest": 1}]}, "did you mean 'at_least'"),
        ({"checks": [SHORT], "knob": {"cal_on": "right"}}, "knob.cal_on: 'right'"),
        ({"checks": [SHORT], "knob": {}}, "knob.cal_on: 'right'"),
        ({"checks": [SHORT], "shadows": {"models": [{"model": "demo:student"}], "use": "influence"}}, "shadows.use: 'influence'"),
    ],
)
def test_configs_that_cannot_be_run_are_said_in_one_line(fields: dict[str, Any], says: str) -> None:
    top = {name: fields.pop(name) for name in ("knob", "shadows") if name in fields}
    model = {"model": "demo:teacher"}
    data = {"task": {"kind": "instructions", "data": {"train": "a.jsonl"}} | fields, "teacher": model, "knob": {"cal_on": "all"}} | top
    data |= {} if "shadows" in top else {"proxy": {"model": "demo:proxy"}}
    if "shadows" in top:
        data["knob"] = {"cal_on": "all", "denominator": "none"}
    with pytest.raises(InputError, match=says) as error:
        parse_run(data, "test.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.real
@pytest.mark.parametrize("name", ["vicuna_80", "mt_bench_80"])
def test_real_questions(name: str) -> None:
    config = InstructionsTask.model_validate(
        {
            "kind": "instructions",
            "data": {"train": str(shared(f"data/instructions/{name}.jsonl"))},
            "question": "turns",
            "checks": [{"kind": "words", "at_most": 200}],
        }
    )
    assert is_graded(config)
    made = make_task(config)
    found = {split: made.prompts(split) for split in ("train", "tune", "report")}
    assert {split: len(prompts) for split, prompts in found.items()} == {"train": 52, "tune": 8, "report": 20}
    texts = [prompt.text for prompts in found.values() for prompt in prompts]
    first = [json.loads(line)["turns"][0].strip() for line in shared(f"data/instructions/{name}.jsonl").read_text().splitlines()]
    assert sorted(texts) == sorted(first)
