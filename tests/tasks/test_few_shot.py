"""Worked examples before prompts: which, in what form, and where an answer ends."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from raydistill.config.task import TaskConfig, next_question
from raydistill.errors import InputError
from raydistill.tasks.make import make_task, task_warnings
from raydistill.tasks.prompt import Task
from raydistill.tasks.verifier import Outcome, Verifier

LONG = "a question of so many words that thirteen of them in a row are the same as"
GOLD = "It is {}.\n#### {}"


def config(**fields: Any) -> Any:
    return TypeAdapter(TaskConfig).validate_python({"kind": "maths", "answer_pattern": "#### (.*)"} | fields)


def task(path: Path, rows: list[dict[str, Any]], **fields: Any) -> Task:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return make_task(config(data={"train": str(path)}, **fields))


def rows(count: int) -> list[dict[str, Any]]:
    return [{"question": f"What is {n} + 1?", "answer": GOLD.format(n + 1, n + 1)} for n in range(count)]


def test_examples_are_the_first_training_questions_but_never_the_asked_one(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    plain, shown = task(file, rows(40), gold="answer"), task(file, rows(40), gold="answer", few_shot=2)
    first = plain.prompts("train")[:3]
    for split in ("train", "tune", "report"):
        for bare, prompt in zip(plain.prompts(split), shown.prompts(split), strict=True):  # type: ignore[arg-type]
            assert (prompt.id, prompt.answer, prompt.gold) == (bare.id, bare.answer, bare.gold)
            examples = [one for one in first if one.id != bare.id][:2]
            expected = [f"Question: {one.text}\nAnswer: {one.gold}" for one in examples] + [f"Question: {bare.text}\nAnswer:"]
            assert prompt.text == "\n\n".join(expected)
            assert prompt.text.count(bare.text) == 1


def test_without_gold_an_example_has_the_answer_and_the_format_is_the_configs(tmp_path: Path) -> None:
    shown = task(tmp_path / "a.jsonl", rows(20), few_shot=1, few_shot_format="Q {question} => {answer}.", limit=3)
    number = int(shown.prompts("train")[0].text.split()[3])
    assert shown.prompts("report")[0].text.startswith("Q What is ")
    assert shown.prompts("train")[0].text.partition("\n\n")[0] == f"Q What is {number} + 1? => {number + 1}."
    assert shown.prompts("train")[0].text.endswith("? =>")


def test_a_smaller_limit_has_the_same_examples(tmp_path: Path) -> None:
    few, all_ = task(tmp_path / "a.jsonl", rows(40), few_shot=2, limit=5), task(tmp_path / "a.jsonl", rows(40), few_shot=2)
    assert few.prompts("train") == all_.prompts("train")[:5]


def test_too_few_questions_are_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^task\.few_shot: 9 examples, but only 7 training questions can be ones; lower it$"):
        task(tmp_path / "a.jsonl", rows(10), few_shot=9).prompts("report")


@pytest.mark.parametrize("text", ["Q {question}", "{answer} {question}", "Q {question}{question}{answer}"])
def test_a_format_without_its_places_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match="must contain"):
        config(data={"train": "x.jsonl"}, few_shot_format=text)


def test_an_answer_is_the_tasks_to_check(tmp_path: Path) -> None:
    shown = task(tmp_path / "a.jsonl", rows(20), gold="answer", few_shot=1)
    prompt = shown.prompts("report")[0]
    assert pickle.loads(pickle.dumps(shown))._task._splits is None
    with Verifier(shown, 1, 5.0) as verifier:
        assert verifier.verify([prompt] * 2, [f" {prompt.gold}", "#### 99"]) == [Outcome.RIGHT, Outcome.WRONG]
    assert shown.style(prompt.gold) == "hash"


def test_a_next_question_is_told_by_the_format() -> None:
    assert next_question(config(data={"train": "x"}, few_shot=1)) == "\n\nQuestion:"
    assert next_question(config(data={"train": "x"}, few_shot=1, few_shot_format="Q ({question}) => {answer}.")) == "\n\nQ ("
    assert next_question(config(data={"train": "x"})) == ""
    with pytest.raises(ValidationError, match="must begin with a text such as `Question:`"):
        config(data={"train": "x"}, few_shot=1, few_shot_format=" {question} {answer}")


def contaminated(tmp_path: Path, **fields: Any) -> Task:
    train = [{"question": f"{LONG} number {n}", "answer": GOLD.format(n, n)} for n in range(2)] + rows(20)
    report = [{"question": f"{LONG.upper()}: {n}?", "answer": GOLD.format(n, n)} for n in (7, 8, 9)] + rows(60)[50:]
    for name, some in (("train", train), ("report", report)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    data = {split: str(tmp_path / f"{split}.jsonl") for split in ("train", "report")}
    return make_task(config(data=data, **fields))


@pytest.mark.parametrize("drop", [False, True])
@pytest.mark.parametrize("few_shot", [0, 3])
def test_overlaps_are_counted_in_a_line_and_dropped_on_demand(tmp_path: Path, drop: bool, few_shot: int) -> None:
    """Examples are never questions that overlap."""
    found = contaminated(tmp_path, drop_contaminated=drop, few_shot=few_shot)
    giving = sum(LONG in prompt.text.rpartition("Question: ")[2] for prompt in found.prompts("train"))
    (warning, *_) = task_warnings(found)
    assert warning.startswith("task.data: 3 of 13 report questions overlap with training questions (13 words in a row, or all words); ")
    assert warning.endswith("2 were dropped" if drop else "task.drop_contaminated=true drops them")
    assert giving == 0 if drop else giving > 0
    assert not any(LONG in prompt.text.rpartition("Question: ")[0] for split in ("train", "report") for prompt in found.prompts(split))  # type: ignore[arg-type]


def test_a_task_without_data_sets_warns_of_nothing() -> None:
    assert task_warnings(make_task(TypeAdapter(TaskConfig).validate_python({"kind": "arithmetic"}))) == ()  # type: ignore[arg-type]
