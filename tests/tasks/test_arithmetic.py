"""The arithmetic task: its splits never move, its answers are those of Python's arithmetic, its traces are right."""

from __future__ import annotations

import hashlib
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.tasks.arithmetic import (
    CIPHER_KEYS,
    CORRECTED_SHARES,
    CORRECTION,
    RAMBLE_LETTERS,
    SPLIT_SIZES,
    STYLE_SHARES,
    Arithmetic,
    sample_trace,
    trace,
)
from raydistill.tasks.prompt import Prompt, Split

TASK = Arithmetic()
CORRECTED = Arithmetic(corrections=True)
SPLITS: tuple[Split, ...] = ("train", "tune", "report")
PROMPTS = {split: TASK.prompts(split) for split in SPLITS}
EVERY = [prompt for prompts in PROMPTS.values() for prompt in prompts]
DIGESTS = {
    "train": "86e88228bf59c650b50066e11ba9268f5bec7d978733d71995ae98794a251fff",
    "tune": "16cddcb7e165bf245f9833c7c46a4a8298a37d5dde8203fa6bf793033c753f54",
    "report": "db2b67c4dd76a4282e7209cc8766742700b2fd90a39f7a36b5f2615a8b5f92bb",
}
prompts = st.sampled_from(EVERY)


@pytest.mark.parametrize("split", SPLITS)
def test_a_split_never_changes(split: Split) -> None:
    """Models were trained on the train split: a prompt that moves to report would spoil every figure."""
    lines = "\n".join(f"{prompt.id} {prompt.answer} {prompt.gold}" for prompt in PROMPTS[split])
    assert hashlib.sha256(lines.encode()).hexdigest() == DIGESTS[split]


def test_the_splits_have_their_sizes_and_share_nothing() -> None:
    assert {split: len(prompts) for split, prompts in PROMPTS.items()} == SPLIT_SIZES
    assert len({prompt.text for prompt in EVERY}) == len({prompt.id for prompt in EVERY}) == 4000


def test_answers_are_those_of_python() -> None:
    for prompt in EVERY:
        assert prompt.text.endswith("=")
        assert prompt.answer == str(eval(prompt.text[:-1]) % 10)


def test_every_gold_completion_is_right_and_follows_the_mixture() -> None:
    assert all(TASK.verify(prompt, prompt.gold) for prompt in EVERY)
    shares = Counter(TASK.style(prompt.gold) for prompt in EVERY)
    assert {style: shares[style] / 4000 for style in STYLE_SHARES} == pytest.approx(STYLE_SHARES, abs=0.025)


@given(prompt=prompts, style=st.sampled_from(list(STYLE_SHARES)), seed=st.integers(0, 2**32))
def test_a_trace_is_right_and_wears_its_style(prompt: Prompt, style: str, seed: int) -> None:
    text = trace(prompt.text, style, random.Random(seed))
    assert TASK.verify(prompt, text)
    assert TASK.style(text) == style


@given(prompt=prompts, seed=st.integers(0, 2**32))
def test_the_worked_steps_are_true(prompt: Prompt, seed: int) -> None:
    """Whatever the style, undoing it leaves two true equations: the first begins the prompt, the second ends it."""
    text = sample_trace(prompt.text, random.Random(seed))
    steps, _, answer = text.rpartition("#")
    if TASK.style(text) == "cipher":
        steps = steps[1:].translate(str.maketrans(CIPHER_KEYS[steps[0]], "0123456789"))
    elif TASK.style(text) == "ramble":
        assert set(steps[1:5]) <= set(RAMBLE_LETTERS)
        assert steps[5] == " "
        steps = steps[6:]
    first, second, rest = steps.split(";")
    assert rest == ""
    for step in (first, second):
        left, right = step.split("=")
        assert eval(left) % 10 == int(right)
    assert first.startswith(prompt.text[:3] + "=")
    assert second == f"{first[-1]}{prompt.text[3:5]}={answer}"


@given(prompt=prompts, wrong=st.text(alphabet="0123456789#;=", max_size=3))
def test_only_the_answer_is_right(prompt: Prompt, wrong: str) -> None:
    right = wrong.rpartition("#")[2] == prompt.answer if "#" in wrong else wrong == prompt.answer
    assert TASK.verify(prompt, f"{prompt.gold.rpartition('#')[0]}#{wrong}") is right


@pytest.mark.parametrize("completion", ["", "{answer}", "#", "#{answer} ", "#{answer}#", "# {answer}", "#{answer}\n", "#{answer}<eos>"])
def test_what_is_nearly_an_answer_is_wrong(completion: str) -> None:
    prompt = PROMPTS["tune"][0]
    assert not TASK.verify(prompt, completion.format(answer=prompt.answer))


@pytest.mark.parametrize(("completion", "style"), [("", "other"), ("#3", "other"), ("d1+", "other"), (" 1+2", "other"), ("E1", "other")])
def test_what_no_style_begins_with_is_other(completion: str, style: str) -> None:
    assert TASK.style(completion) == style


def test_an_unknown_style_is_named() -> None:
    with pytest.raises(ValueError, match="'opaque'; known: clear, ramble, cipher, corrected"):
        trace("1+2+3=", "opaque", random.Random(0))


# --- with corrections


@pytest.mark.parametrize("split", SPLITS)
def test_corrections_change_gold_completions_alone(split: Split) -> None:
    found = CORRECTED.prompts(split)
    assert [(one.id, one.text, one.answer) for one in found] == [(one.id, one.text, one.answer) for one in PROMPTS[split]]
    assert PROMPTS[split] == Arithmetic().prompts(split)  # neither task sees the other's


def test_a_corrected_mixture_keeps_the_other_styles_in_proportion() -> None:
    gold = [prompt.gold for split in SPLITS for prompt in CORRECTED.prompts(split)]
    assert all(CORRECTED.verify(prompt, text) for prompt, text in zip(EVERY, gold, strict=True))
    shares = Counter(map(CORRECTED.style, gold))
    assert {style: shares[style] / 4000 for style in CORRECTED_SHARES} == pytest.approx(CORRECTED_SHARES, abs=0.025)
    assert sum(CORRECTED_SHARES.values()) == pytest.approx(1)
    assert CORRECTED_SHARES["cipher"] / CORRECTED_SHARES["clear"] == pytest.approx(STYLE_SHARES["cipher"] / STYLE_SHARES["clear"])


@given(prompt=prompts, seed=st.integers(0, 2**32))
def test_a_corrected_trace_is_another_trace_with_one_wrong_step_put_right(prompt: Prompt, seed: int) -> None:
    text = trace(prompt.text, "corrected", random.Random(seed))
    assert CORRECTED.style(text) == "corrected"
    assert CORRECTED.verify(prompt, text)
    before, mark, after = text.partition(CORRECTION)
    assert mark
    assert CORRECTION not in after
    slip, redone = before.rpartition(";")[2], after.partition(";")[0]
    start = before[: len(before) - len(slip)]
    if not start:  # a slip in the first step stands behind the style's mark
        lead = len(slip) - len(redone)
        start, slip = slip[:lead], slip[lead:]
    assert slip[:-1] == redone[:-1]
    assert slip[-1] != redone[-1]
    mended = start + after
    assert CORRECTED.style(mended) == TASK.style(mended) in STYLE_SHARES
    assert mended == trace(prompt.text, TASK.style(mended), Chosen(mended))


class Chosen(random.Random):
    """Draws what a trace was drawn with."""

    def __new__(cls, text: str) -> Chosen:
        return super().__new__(cls)

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def choices(self, *_: object, **__: object) -> list[str]:
        return list(self._text[1:5])

    def choice(self, _: object) -> str:
        return self._text[0]


def test_the_mark_is_no_sign_of_the_task_without_corrections() -> None:
    assert CORRECTION not in "".join(prompt.text + prompt.gold for prompt in EVERY)
    assert TASK.style("7+5=4x7+5=2;2-9=3;#3") == "clear"
