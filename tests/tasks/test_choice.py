"""The multiple-choice task: the layouts of known data sets by config alone, prompts, answers, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from raydistill.config.task import TaskConfig
from raydistill.errors import InputError
from raydistill.tasks.make import make_task
from raydistill.tasks.prompt import Prompt, Split, Task
from raydistill.tasks.verifier import Outcome, Verifier

SPLITS: tuple[Split, ...] = ("train", "tune", "report")
TEXTS = ["red", "green", "blue"]


def made(path: Path, rows: list[dict[str, Any]], **fields: Any) -> Task:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config: Any = TypeAdapter(TaskConfig).validate_python({"kind": "choice", "data": {"train": str(path)}} | fields)
    return make_task(config)


def every(task: Task) -> dict[str, Prompt]:
    return {prompt.text: prompt for split in SPLITS for prompt in task.prompts(split)}


LAYOUTS: dict[str, tuple[dict[str, Any], Any]] = {
    "CommonsenseQA, original": (
        {"question": "question.stem", "options": "question.choices", "answer": "answerKey"},
        lambda stem, place: {
            "question": {"stem": stem, "question_concept": "x", "choices": [{"label": "ABC"[n], "text": t} for n, t in enumerate(TEXTS)]},
            "answerKey": "ABC"[place],
        },
    ),
    "CommonsenseQA, hub": (
        {"options": "choices", "answer": "answerKey"},
        lambda stem, place: {"question": stem, "choices": {"label": ["A", "B", "C"], "text": TEXTS}, "answerKey": "ABC"[place]},
    ),
    "ARC": (
        {"options": "choices", "answer": "answerKey"},
        lambda stem, place: {"question": stem, "choices": {"label": ["1", "2", "3"], "text": TEXTS}, "answerKey": str(place + 1)},
    ),
    "MMLU-Pro": ({}, lambda stem, place: {"question": stem, "options": TEXTS, "answer": "ABC"[place], "answer_index": place}),
    "MMLU-Pro, index": (
        {"answer": "answer_index", "answer_is": "index"},
        lambda stem, place: {"question": stem, "options": TEXTS, "answer": "ABC"[place], "answer_index": place},
    ),
    "SuperGPQA": (
        {"answer_is": "text"},
        lambda stem, place: {"question": stem, "options": TEXTS, "answer": TEXTS[place], "answer_letter": "ABC"[place]},
    ),
    "SuperGPQA, letter": (
        {"answer": "answer_letter"},
        lambda stem, place: {"question": stem, "options": TEXTS, "answer": TEXTS[place], "answer_letter": "ABC"[place]},
    ),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_layouts_of_known_data_sets(tmp_path: Path, name: str) -> None:
    fields, row = LAYOUTS[name]
    found = every(made(tmp_path / "rows.jsonl", [row(f"Which one is number {n}?", n % 3) for n in range(12)], **fields))
    assert {prompt.text: prompt.answer for prompt in found.values()} == {
        f"Which one is number {n}?\nA. red\nB. green\nC. blue": "ABC"[n % 3] for n in range(12)
    }
    assert all(prompt.options == tuple(TEXTS) and prompt.gold == "" for prompt in found.values())


def plain(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"Number {n}?", "options": TEXTS, "answer": "B"} | more for n in range(count)]


def test_the_layout_and_a_gold_completion(tmp_path: Path) -> None:
    rows = [row | {"cot": "It is (B)."} for row in plain()] + [
        {"question": "{options}", "options": ["{question}", "x"], "answer": "A", "cot": "?"}
    ]
    found = every(made(tmp_path / "rows.jsonl", rows, layout="Q: {question}\n\n{options}\n\nLetter:", gold="cot"))
    assert found["Q: Number 3?\n\nA. red\nB. green\nC. blue\n\nLetter:"].gold == "It is (B)."
    assert "Q: {options}\n\nA. {question}\nB. x\n\nLetter:" in found


@pytest.mark.parametrize("layout", ["{question}", "{options}\n{question}", "{question}{options}{options}"])
def test_a_layout_without_its_places_is_refused(layout: str) -> None:
    with pytest.raises(ValidationError, match="must contain"):
        TypeAdapter(TaskConfig).validate_python({"kind": "choice", "data": {"train": "x.jsonl"}, "layout": layout})


def test_the_same_question_with_its_options_in_another_order_is_a_repeat(tmp_path: Path) -> None:
    turned = [row | {"options": TEXTS[::-1]} for row in plain()]
    others = [row | {"options": [*TEXTS, "grey"]} for row in plain(3)]
    task = made(tmp_path / "rows.jsonl", plain() + turned + others)
    assert len(every(task)) == 15
    assert task.warnings[0].endswith("repeat a question of another row or split; left out")  # type: ignore[attr-defined]


def test_repeats_are_compared_by_the_text_of_the_right_option(tmp_path: Path) -> None:
    turned = [row | {"options": TEXTS[::-1], "answer": answer} for row, answer in zip(plain(3), "ABC", strict=True)]
    task = made(tmp_path / "rows.jsonl", plain() + turned)
    task.prompts("train")
    assert "3 of 15 rows of" in task.warnings[0]  # type: ignore[attr-defined]
    assert task.warnings[0].endswith("; left out, 2 of them with another answer than the one that is kept")  # type: ignore[attr-defined]


def test_overlaps_are_of_questions_and_options_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "report.jsonl").write_text(json.dumps({"question": "Number 3!", "options": TEXTS[::-1], "answer": "B"}) + "\n")
    data = {"train": str(tmp_path / "train.jsonl"), "report": str(tmp_path / "report.jsonl")}
    task = made(tmp_path / "train.jsonl", plain(), data=data, drop_contaminated=True)
    assert not any("Number 3" in prompt.text for prompt in task.prompts("train"))
    other = made(tmp_path / "train.jsonl", [row | {"options": ["a", "b", "c"]} for row in plain()], data=data)
    other.prompts("train")
    assert other.warnings == ()  # type: ignore[attr-defined]


def test_few_shot(tmp_path: Path) -> None:
    prompt = made(tmp_path / "rows.jsonl", plain(), few_shot=1).prompts("report")[0]
    example, asked = prompt.text.split("\n\n")
    assert example.startswith("Question: Number ")
    assert example.endswith("?\nA. red\nB. green\nC. blue\nAnswer: B")
    assert asked.endswith("?\nA. red\nB. green\nC. blue\nAnswer:")


def test_in_a_verifier(tmp_path: Path) -> None:
    task = made(tmp_path / "rows.jsonl", plain())
    prompt = task.prompts("report")[0]
    texts = ["The answer is (B).", "B. green", "A. red", "The answer is (Z).", "A dog.", "", "answer is (" * 900_000]
    with Verifier(task, 1, 10.0) as verifier:
        outcomes = verifier.verify([prompt] * len(texts), texts)
    assert outcomes == [Outcome.RIGHT] * 2 + [Outcome.WRONG] * 5
    assert [task.style(text) for text in texts[:5]] == ["stated", "letter", "letter", "stated", "none"]


BAD = {
    "label": (
        {"answer": "D"},
        {},
        r"task\.answer: 'D' in row 1 of \S+ is the label of none of its options \('A', 'B', 'C'\); set task\.answer_is",
    ),
    "index": ({"answer": 3}, {"answer_is": "index"}, r"task\.answer: '3' in row 1 .* is the index of none .*\('0', '1', '2'\)"),
    "text": ({"answer": "grey"}, {"answer_is": "text"}, r"task\.answer: 'grey' in row 1 .* is the text of none"),
    "blank": ({"options": ["red", " ", "blue"]}, {}, r"task\.options: row 1 of \S+ has no text for option B; fill it"),
    "one": ({"options": ["red", "", None]}, {}, r"task\.options: row 1 of \S+ has 1 options; a question needs 2 to 26"),
    "many": ({"options": [str(n) for n in range(27)]}, {}, r"task\.options: row 1 of \S+ has 27 options"),
    "string": ({"options": "red, green"}, {}, r"task\.options: row 1 of \S+ has no list of options there; name a column with texts"),
    "labels": ({"options": {"label": ["A", "A", "B"], "text": TEXTS}}, {}, r"has 3 options but the labels 'A', 'A', 'B'; each needs one"),
    "short": ({"options": {"label": ["A", "B"], "text": TEXTS}}, {}, r"has 3 options but the labels 'A', 'B'; each needs one"),
    "giant": (
        {"options": ["red", "y" * 3 * 2**20]},
        {},
        r"^task\.options: row 1 of \S+ has a text of 3,145,728 characters, more than 1,048,576",
    ),
    "giant label": ({"options": {"label": ["A", "y" * 3 * 2**20], "text": ["red", "blue"]}}, {}, r"row 1 of \S+ has a text of 3,145,728"),
    "long labels": (
        {"options": {"label": ["y" * 2**20] * 3, "text": TEXTS}},
        {},
        r"has 3 options but the labels 'y{20}', 'y{20}', 'y{20}'; each",
    ),
    "column": ({}, {"options": "choices"}, r"task\.options: \S+ has no column 'choices'"),
}


@pytest.mark.parametrize("name", list(BAD))
def test_a_row_that_cannot_be_used_is_named(tmp_path: Path, name: str) -> None:
    row, fields, message = BAD[name]
    with pytest.raises(InputError, match=message) as caught:
        made(tmp_path / "rows.jsonl", plain(**row), **fields).prompts("train")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_options_of_bytes_are_named(tmp_path: Path) -> None:
    table = pa.table({"question": ["Number 1?"], "options": [[b"red", b"blue"]], "answer": ["A"]})
    parquet.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(InputError, match=r"^task\.options: row 1 of \S+ has bytes there, not text; save the column as text$"):
        made(tmp_path / "unread.jsonl", [], data={"train": str(tmp_path / "rows.parquet")}).prompts("train")


def test_options_that_fill_up_a_table_are_left_out(tmp_path: Path) -> None:
    (prompt, *_) = made(tmp_path / "rows.jsonl", plain(options=["red", "green", "", None])).prompts("train")
    assert prompt.options == ("red", "green")
