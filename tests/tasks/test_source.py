"""Splits that are read in a way of their own, and the group of a question."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from raydistill.config.load import load_run
from raydistill.config.task import TaskConfig
from raydistill.errors import InputError
from raydistill.tasks.make import make_task
from raydistill.tasks.prompt import Prompt, Task
from raydistill.tasks.source import source_of
from tests.real import shared

SHORT = [{"kind": "words", "at_most": 3}]


def write(path: Path, rows: Sequence[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def made(**fields: Any) -> Task:
    return make_task(TypeAdapter(TaskConfig).validate_python(fields))  # type: ignore[arg-type]


def by_text(prompts: list[Prompt]) -> dict[str, Prompt]:
    return {prompt.text: prompt for prompt in prompts}


def sums(first: int, last: int, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}.\n#### {n + 1}", "n": n} | more for n in range(first, last)]


@pytest.fixture
def train(tmp_path: Path) -> str:
    """As BigMath has them."""
    return write(tmp_path / "train.jsonl", [{"prompt": f"Double {n}.", "solution": str(2 * n), "level": n % 3} for n in range(30)])


@pytest.fixture
def report(tmp_path: Path) -> str:
    """As GSM8K has them."""
    return write(tmp_path / "report.jsonl", sums(0, 10))


BIGMATH = {"kind": "maths", "question": "prompt", "answer": "solution"}
GSM8K = {"question": "question", "answer": "answer", "answer_pattern": "#### (.*)", "gold": "answer"}


def test_a_setting_is_the_split_s_own_or_the_task_s() -> None:
    settings = {"question": "q", "gold": "g", "where": None}
    plain, own = source_of("tune", "a.jsonl", settings), source_of("report", {"source": "b.jsonl", "gold": None}, settings)
    assert (plain.name, plain.settings, plain.field) == ("a.jsonl", settings, "task.data.tune")
    assert (own.name, own.settings, own.field) == ("b.jsonl", settings | {"gold": None}, "task.data.report")
    assert [own.field_of(name) for name in ("question", "gold")] == ["task.question", "task.data.report.gold"]


def test_a_maths_task_may_report_on_another_data_set(train: str, report: str) -> None:
    task = made(**BIGMATH, data={"train": train, "report": {"source": report, **GSM8K, "where": {"n": [1, 2, 3, 4]}}})
    assert {text: (one.answer, one.gold) for text, one in by_text(task.prompts("report")).items()} == {
        f"What is {n} + 1?": (str(n + 1), f"It is {n + 1}.\n#### {n + 1}") for n in (1, 2, 3, 4)
    }
    for split in ("train", "tune"):
        assert all(one.answer == str(2 * int(one.text[7:-1])) and not one.gold for one in task.prompts(split))  # type: ignore[arg-type]


def test_what_a_split_gives_is_its_own_alone(train: str, report: str, tmp_path: Path) -> None:
    """Each split is as in a task that reads all its splits that way."""
    own = made(**BIGMATH, where={"level": 1}, data={"train": train, "report": {"source": report, **GSM8K, "where": None}})
    others = write(tmp_path / "others.jsonl", sums(100, 110))
    assert own.prompts("report") == made(kind="maths", **GSM8K, data={"train": others, "report": report}).prompts("report")
    last = write(tmp_path / "last.jsonl", [{"prompt": "Halve 2.", "solution": "1", "level": 1}])
    assert own.prompts("train") == made(**BIGMATH, where={"level": 1}, data={"train": train, "report": last}).prompts("train")


def test_splits_that_are_cut_have_the_columns_of_train(train: str) -> None:
    own = made(kind="maths", data={"train": {"source": train, "question": "prompt", "answer": "solution"}})
    plain = made(**BIGMATH, data={"train": train})
    for split in ("train", "tune", "report"):
        assert own.prompts(split) == plain.prompts(split)  # type: ignore[arg-type]


def test_a_choice_task_may_report_on_another_data_set(tmp_path: Path) -> None:
    texts = ["red", "green", "blue"]
    rows = [{"question": f"Number {n}?", "options": texts, "answer": "B"} for n in range(12)]
    other = [{"stem": f"Which {n}?", "choices": {"text": texts[::-1]}, "place": n % 3} for n in range(6)]
    own = {"question": "stem", "options": "choices", "answer": "place", "answer_is": "index"}
    data = {"train": write(tmp_path / "a.jsonl", rows), "report": {"source": write(tmp_path / "b.jsonl", other), **own}}
    task = made(kind="choice", data=data)
    assert {one.text: (one.options, one.answer) for one in task.prompts("report")} == {
        f"Which {n}?\nA. blue\nB. green\nC. red": (("blue", "green", "red"), "ABC"[n % 3]) for n in range(6)
    }
    assert {one.answer for one in task.prompts("train")} == {"B"}


def dolly(count: int) -> list[dict[str, Any]]:
    return [
        {"instruction": f"Say {n}.", "context": "Be brief.", "response": "No.", "rules": json.dumps(SHORT), "category": ["qa", ""][n % 2]}
        for n in range(count)
    ]


DOLLY = {"kind": "instructions", "context": "context", "gold": "response", "checks": SHORT, "checks_column": "rules", "group": "category"}
TURNS = {"question": "turns", "context": None, "gold": None, "checks_column": None}


def test_null_takes_a_column_away(tmp_path: Path) -> None:
    turns = [{"turns": [f"First {n}?", "Then?"], "category": f"level {n % 2}"} for n in range(8)]
    report = {"source": write(tmp_path / "turns.jsonl", turns), **TURNS}
    task = made(**DOLLY, data={"train": write(tmp_path / "dolly.jsonl", dolly(20)), "report": report})
    assert {one.text: (one.gold, one.answer, one.group) for one in task.prompts("report")} == {
        f"First {n}?": ("", "", f"level {n % 2}") for n in range(8)
    }
    assert {(one.gold, one.text.partition("\n\n")[2]) for one in task.prompts("tune")} == {("No.", "Be brief.")}
    assert {one.group for one in task.prompts("train")} == {"qa", ""}


def test_a_group_is_text_and_may_be_empty(tmp_path: Path) -> None:
    groups: list[Any] = [1, 2.5, " Level 4 ", "", None, True]
    rows = [row | {"meta": {"group": groups[row["n"] % 6]}} for row in sums(0, 60)]
    task = made(kind="maths", data={"train": write(tmp_path / "a.jsonl", rows)}, answer_pattern="#### (.*)", group="meta.group", few_shot=1)
    expected = {f"What is {n} + 1?": ["1", "2.5", "Level 4", "", "", "True"][n % 6] for n in range(60)}
    found = {one.text.removesuffix("\nAnswer:").rpartition("Question: ")[2]: one.group for one in task.prompts("train")}
    assert found == {text: group for text, group in expected.items() if text in found}
    assert set(found.values()) == {"1", "2.5", "Level 4", "", "True"}
    assert all(repr(one) == repr(replace(one, group="")) for one in task.prompts("train"))  # a finished student stays known


@pytest.mark.parametrize(
    ("fields", "own", "says"),
    [
        ({}, {"answer_pattern": None}, r"^task\.question: \S+report\.jsonl has no column 'prompt'"),
        ({}, {**GSM8K, "question": "qestion"}, r"^task\.data\.report\.question: \S+ has no column 'qestion'; did you mean 'question'\?"),
        ({}, {**GSM8K, "where": {"level": 3}}, r"^task\.data\.report\.where\.level: \S+ has no column 'level'"),
        ({}, {**GSM8K, "where": {"n": 11}}, r"^task\.data\.report\.where: no row of \S+ is left; .*'n' none has '11'"),
        ({}, {**GSM8K, "answer_pattern": "#### .*"}, r"^task\.data\.report\.answer_pattern: .* has no group"),
        ({}, {**GSM8K, "answer_pattern": "boxed"}, r"^task\.data\.report\.answer_pattern: finds no answer in row 1 of \S+report\.jsonl"),
        ({"group": "levl"}, GSM8K, r"^task\.group: \S+report\.jsonl has no column 'levl'"),
        ({"group": "level"}, {**GSM8K, "group": "lvl"}, r"^task\.data\.report\.group: \S+report\.jsonl has no column 'lvl'"),
        ({"group": "level"}, {**GSM8K, "group": "list"}, r"^task\.data\.report\.group: row 1 of \S+ has a list there"),
        ({}, {**GSM8K, "gold": "list"}, r"^task\.data\.report\.gold: row 1 of \S+ has a list there"),
    ],
)
def test_what_is_wrong_is_named_by_the_field_that_gave_it(
    train: str, tmp_path: Path, fields: dict[str, Any], own: dict[str, Any], says: str
) -> None:
    report = write(tmp_path / "report.jsonl", sums(0, 10, list=["a"]))
    with pytest.raises(InputError, match=says) as error:
        made(**BIGMATH, **fields, data={"train": train, "report": {"source": report, **own}}).prompts("train")
    assert "\n" not in str(error.value)


def test_the_cure_for_an_answer_names_the_split_s_field(tmp_path: Path) -> None:
    rows = [{"question": f"Number {n}?", "options": ["red", "green"], "answer": "B"} for n in range(12)]
    file = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(InputError, match=r"^task\.answer: 'B' in row 1 .*; set task\.data\.report\.answer_is to label, index or text$"):
        made(kind="choice", data={"train": file, "report": {"source": file, "answer_is": "text"}}).prompts("train")


@pytest.mark.real
@pytest.mark.parametrize(("name", "groups"), [("vicuna_80", 9), ("mt_bench_80", 8)])
def test_real_questions_report_on_a_task_of_other_columns(tmp_path: Path, name: str, groups: int) -> None:
    file = shared(f"data/instructions/{name}.jsonl")
    data = {"train": write(tmp_path / "dolly.jsonl", dolly(20)), "report": {"source": str(file), **TURNS}}
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    prompts = made(**DOLLY, data=data).prompts("report")
    assert {one.text: one.group for one in prompts} == {row["turns"][0].strip(): row["category"] for row in rows}
    assert (len(prompts), len({one.group for one in prompts})) == (80, groups)


@pytest.mark.real
def test_the_paper_s_preset_reads_vicuna(tmp_path: Path) -> None:
    train, file = write(tmp_path / "dolly.jsonl", dolly(20)), shared("data/instructions/vicuna_80.jsonl")
    run = load_run(Path("configs/paper/qwen3-vicuna.yaml"), [f"task.data.train={train}", f"task.data.report.source={file}"])
    prompts = make_task(run.task).prompts("report")
    assert (len(prompts), len({one.group for one in prompts}), {one.gold for one in prompts}) == (80, 9, {""})
