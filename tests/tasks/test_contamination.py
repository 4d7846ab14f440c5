"""Overlaps of questions, against sets of word tuples compared pair by pair."""

from __future__ import annotations

import re
import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.tasks.contamination import FREQUENT, overlaps


def by_loop(train: list[str], measured: list[str], n: int) -> list[tuple[int, int]]:
    def words(text: str) -> tuple[str, ...]:
        return tuple(re.findall(r"\w+", text.casefold()))

    def runs(text: str) -> set[tuple[str, ...]]:
        found = words(text)
        return {found[start : start + n] for start in range(len(found) - n + 1)}

    counts = Counter(run for text in train for run in runs(text))
    pairs = []
    for place, text in enumerate(train):
        for other, asked in enumerate(measured):
            shared = [run for run in runs(text) & runs(asked) if counts[run] <= FREQUENT]
            if shared or (words(text) and words(text) == words(asked)):
                pairs.append((place, other))
    return pairs


TEXTS = st.lists(st.lists(st.sampled_from(["a", "B", "b", "c,", "?", "é"]), max_size=8).map(" ".join), max_size=14)


@given(TEXTS, TEXTS, st.integers(1, 4))
def test_it_is_what_a_loop_finds(train: list[str], measured: list[str], n: int) -> None:
    assert overlaps(train, measured, n) == by_loop(train, measured, n)


LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


@pytest.mark.parametrize(
    ("train", "measured", "overlap"),
    [
        (f"Now {LONG} and on", f"{LONG.upper()}!", True),
        (LONG.replace(" ", ", "), f"before\n{LONG}", True),
        (LONG.rpartition(" ")[0] + " other", LONG + " more", False),
        ("What is 2 + 2?", "what is 2+2", True),
        ("What is 2 + 2?", "What is 2 + 2? Say it.", False),
        ("?", "!", False),
    ],
)
def test_by_hand(train: str, measured: str, overlap: bool) -> None:
    assert overlaps([train], [measured]) == ([(0, 0)] if overlap else [])


def test_a_phrase_of_many_questions_tells_nothing_but_the_same_question_does() -> None:
    train = [f"{LONG} number {n}" for n in range(FREQUENT + 1)]
    assert overlaps(train, [f"{LONG} number 99"]) == []
    assert overlaps(train, [f"{LONG} number 3"]) == [(3, 0)]
    assert len(overlaps(train[:-1], [f"{LONG} number 99"])) == FREQUENT


def test_a_phrase_that_all_questions_have_costs_no_square() -> None:
    train = [f"{LONG} number {n}" for n in range(5000)]
    start = time.process_time()
    assert overlaps(train, [f"{LONG} asks {n}" for n in range(5000)]) == []
    assert time.process_time() - start < 3
