"""Accuracy by option likelihood, against a plain loop and on cases made by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.evaluate.options import option_accuracy, score_options
from raydistill.scoring.score import SequenceScore
from raydistill.tasks.letters import LETTERS, place_of
from raydistill.tasks.prompt import Prompt

LOGPROBS = st.one_of(st.just(-math.inf), st.integers(-8, 0).map(float))  # few values: ties are common


def scored(logprob: float, size: int) -> SequenceScore:
    return SequenceScore(logprob, tokens=size, bytes=size, end_logprob=-1.0)


@st.composite
def questions(draw: st.DrawFn) -> tuple[list[list[SequenceScore]], list[int]]:
    rows = draw(st.lists(st.lists(st.builds(scored, LOGPROBS, st.integers(0, 4)), min_size=1, max_size=6), min_size=1, max_size=8))
    return rows, [draw(st.integers(0, len(row) - 1)) for row in rows]


def by_loop(rows: Sequence[Sequence[SequenceScore]], right: Sequence[int], per_byte: bool) -> float:
    """The expected accuracy of one who picks any of the likeliest options that have a text."""
    points = 0.0
    for row, place in zip(rows, right, strict=True):
        best, chosen = -math.inf, []
        for n, score in enumerate(row):
            if score.bytes == 0:
                continue
            value = score.logprob / score.bytes if per_byte else score.logprob
            if value > best:
                best, chosen = value, [n]
            elif value == best and chosen:
                chosen.append(n)
        if place in chosen:
            points += 1 / len(chosen)
    return points / len(rows)


@given(questions())
def test_it_is_what_a_loop_finds(case: tuple[list[list[SequenceScore]], list[int]]) -> None:
    rows, right = case
    found = option_accuracy(rows, right)
    assert found.acc.mean == pytest.approx(by_loop(rows, right, per_byte=False))
    assert found.acc_norm.mean == pytest.approx(by_loop(rows, right, per_byte=True))
    assert found.acc.n == found.acc_norm.n == len(rows)


@given(questions())
def test_the_order_of_options_is_of_no_account(case: tuple[list[list[SequenceScore]], list[int]]) -> None:
    rows, right = case
    turned = option_accuracy([row[::-1] for row in rows], [len(row) - 1 - place for row, place in zip(rows, right, strict=True)])
    assert turned == option_accuracy(rows, right)


def test_a_long_option_wins_by_the_byte_alone() -> None:
    found = option_accuracy([[scored(-4, 2), scored(-6, 12)]] * 4, [1, 1, 1, 0])
    assert (found.acc.mean, found.acc_norm.mean) == (0.25, 0.75)
    assert found.acc.ci95 is not None
    assert found.acc.ci95[0] < 0.25 < found.acc.ci95[1]


def test_ties_and_empty_options_are_counted() -> None:
    found = option_accuracy([[scored(-1, 1), scored(-1, 2), scored(-3, 1)], [scored(0, 0), scored(-5, 3)], [scored(0, 0)]], [0, 1, 0])
    assert (found.acc.mean, found.ties, found.empty) == (0.5, 1, 2)
    assert found.acc_norm.mean == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("rows", "right", "message"),
    [
        ([], [], "no values"),
        ([[scored(-1, 1)]], [1], "number 1, counted from 0, of 1"),
        ([[scored(-1, 1)]], [-1], "number -1"),
        ([[scored(-1, 1), scored(math.nan, 1)]], [0], "NaN"),
        ([[scored(-1, 1)]], [0, 0], "zip"),
    ],
)
def test_what_cannot_be_measured_is_said(rows: list[list[SequenceScore]], right: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        option_accuracy(rows, right)


PROMPTS = [
    Prompt("a", "Which?", "B", "", options=("one", "zwölf")),
    Prompt("b", "Who?", "A", "", options=("you", "they", "no one at all")),
]


@pytest.mark.parametrize(
    ("continuations", "lead", "asked"),
    [
        ("texts", " ", [" one", " zwölf", " you", " they", " no one at all"]),
        ("letters", "", ["A", "B", "A", "B", "C"]),
    ],
)
def test_each_option_is_put_after_its_question_at_once(continuations: str, lead: str, asked: list[str]) -> None:
    calls = []

    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        calls.append((list(prompts), list(completions)))
        return [scored(-len(text), 99) for text in completions]

    rows = score_options(PROMPTS, score, continuations, lead)  # type: ignore[arg-type]
    assert calls == [(["Which?"] * 2 + ["Who?"] * 3, asked)]
    assert [[round(-one.logprob) for one in row] for row in rows] == [[len(t) for t in asked[:2]], [len(t) for t in asked[2:]]]
    assert [one.bytes for row in rows for one in row] == [len(text.removeprefix(lead).encode()) for text in asked]


def test_the_right_option_is_the_prompts_answer() -> None:
    def score(_: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        return [scored(0.0 if text in (" B",) else -2.0 - LETTERS.index(text.strip()), 1) for text in completions]

    assert option_accuracy(score_options(PROMPTS, score, "letters"), [place_of(prompt.answer) for prompt in PROMPTS]).acc.mean == 0.5


def test_a_prompt_without_options_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt x has no options"):
        score_options([Prompt("x", "1+1=", "2", "")], lambda _, texts: [scored(-1, 1) for _ in texts])
