"""The multiple-choice task on a sample of CommonsenseQA."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from pydantic import TypeAdapter

from raydistill.config.task import TaskConfig
from raydistill.tasks.make import make_task
from raydistill.tasks.prompt import Task
from raydistill.tasks.verifier import Outcome, Verifier
from tests.real import shared

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def csqa() -> Task:
    fields = {"question": "question.stem", "options": "question.choices", "answer": "answerKey"}
    data = {"train": str(shared("data/commonsense_qa/sample_200.jsonl"))}
    config: Any = TypeAdapter(TaskConfig).validate_python({"kind": "choice", "data": data} | fields)
    return make_task(config)


def test_every_row_is_a_prompt(csqa: Task) -> None:
    prompts = [prompt for split in ("train", "tune", "report") for prompt in csqa.prompts(split)]  # type: ignore[arg-type]
    rows = [json.loads(line) for line in shared("data/commonsense_qa/sample_200.jsonl").read_text().splitlines()]
    expected = {
        "\n".join(
            [row["question"]["stem"].strip(), *(f"{one['label']}. {one['text'].strip()}" for one in row["question"]["choices"])]
        ): row["answerKey"]
        for row in rows
    }
    assert {prompt.text: prompt.answer for prompt in prompts} == expected
    assert len(prompts) == 200
    assert Counter(len(prompt.options) for prompt in prompts) == {5: 200}


def test_every_right_option_verifies_in_any_form_and_no_other_does(csqa: Task) -> None:
    prompts = csqa.prompts("train")
    chosen = [prompt.options["ABCDE".index(prompt.answer)] for prompt in prompts]
    forms = {
        "letter": ([prompt.answer for prompt in prompts], Outcome.RIGHT),
        "option": ([f"{prompt.answer}. {text}" for prompt, text in zip(prompts, chosen, strict=True)], Outcome.RIGHT),
        "stated": (
            [f"As A is a word, the answer is ({prompt.answer}) {text}." for prompt, text in zip(prompts, chosen, strict=True)],
            Outcome.RIGHT,
        ),
        "wrong": (["#### " + "ABCDE"["ABCDE".index(prompt.answer) - 1] for prompt in prompts], Outcome.WRONG),
        "text alone": (chosen, Outcome.WRONG),
    }
    with Verifier(csqa, 1, 10.0) as verifier:
        for name, (completions, expected) in forms.items():
            assert Counter(verifier.verify(prompts, completions)) == {expected: len(prompts)}, name
