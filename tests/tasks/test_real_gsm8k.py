"""The maths task on GSM8K."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from raydistill.tasks.contamination import overlaps
from raydistill.tasks.maths import Maths
from raydistill.tasks.verifier import Outcome, Verifier
from tests.real import shared

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def gsm8k() -> Maths:
    folder = shared("data/gsm8k")
    files = {"train": str(folder / "train.jsonl"), "tune": None, "report": str(folder / "test.jsonl")}
    return Maths(files, gold="answer", answer_pattern=r"#### (.*)")  # type: ignore[arg-type]


def test_the_splits(gsm8k: Maths) -> None:
    ids = {split: {prompt.id for prompt in gsm8k.prompts(split)} for split in ("train", "tune", "report")}
    assert {split: len(found) for split, found in ids.items()} == {"train": 6726, "tune": 747, "report": 1319}
    assert len(set.union(*ids.values())) == 6726 + 747 + 1319


def test_every_answer_verifies_in_any_form_and_no_other_does(gsm8k: Maths) -> None:
    prompts = gsm8k.prompts("report")
    forms = {
        "gold": ([prompt.gold for prompt in prompts], Outcome.RIGHT),
        "boxed": ([f"So it is \\boxed{{{prompt.answer}}}." for prompt in prompts], Outcome.RIGHT),
        "plain": ([f"The answer is {prompt.answer}." for prompt in prompts], Outcome.RIGHT),
        "wrong": ([f"#### {float(prompt.answer.replace(',', '')) + 1}" for prompt in prompts], Outcome.WRONG),
        "none": (["I give up." for _ in prompts], Outcome.WRONG),
    }
    with Verifier(gsm8k, 2, 10.0) as verifier:
        for name, (completions, expected) in forms.items():
            assert Counter(verifier.verify(prompts, completions)) == {expected: len(prompts)}, name


def test_styles(gsm8k: Maths) -> None:
    assert {gsm8k.style(prompt.gold) for prompt in gsm8k.prompts("report")} == {"hash"}


def test_overlaps_are_few_and_quickly_found(gsm8k: Maths) -> None:
    train, report = ([prompt.text for prompt in gsm8k.prompts(split)] for split in ("train", "report"))
    start = time.process_time()
    pairs = overlaps([*train, *(prompt.text for prompt in gsm8k.prompts("tune"))], report)
    assert time.process_time() - start < 2
    assert {report[place].partition(" ")[0] for _, place in pairs} == {"A", "Max"}
