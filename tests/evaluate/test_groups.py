"""Which questions are of one group, in what order groups stand, and how many there may be."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.errors import InputError
from raydistill.evaluate.groups import MOST_GROUPS, places_by, require_few_groups


@pytest.mark.parametrize(
    "ordered",
    [
        ["Level 1", "Level 2", "Level 10", ""],
        ["1", "2", "2.5", "10"],
        ["0.125", "0.25", "0.5", "1.0"],
        ["algebra", "Biology", "chemistry", ""],
        ["easy", "hard", "middle"],
        ["A", "B", "C"],
        ["3 of 4", "10 of 2", "10 of 11"],
        ["7", "x", "x7"],
        ["", "9" * 400][::-1],
    ],
)
def test_natural_order(ordered: list[str]) -> None:
    for seed in range(5):
        assert list(places_by(random.Random(seed).sample(ordered, len(ordered)))) == ordered


@given(st.lists(st.text(max_size=4) | st.from_regex(r"[ab][0-9]{1,3}", fullmatch=True)))
def test_every_place_is_of_its_name_and_the_order_of_names_is_one(names: list[str]) -> None:
    found = places_by(names)
    assert {place: name for name, places in found.items() for place in places} == dict(enumerate(names))
    assert all(places == sorted(places) for places in found.values())
    assert list(places_by(names[::-1])) == list(found)


@given(st.lists(st.integers(0, 10**6), unique=True))
def test_numbers_after_a_word_are_in_their_own_order(numbers: list[int]) -> None:
    assert list(places_by([f"Level {number}" for number in numbers])) == [f"Level {number}" for number in sorted(numbers)]


def test_more_groups_than_a_table_can_show_are_refused() -> None:
    names = [str(n) for n in range(MOST_GROUPS)] * 2
    require_few_groups("task.group", names)
    with pytest.raises(
        InputError, match=r"^task\.data\.report\.group: its column has 101 different values in 201 prompts, more than 100; "
    ):
        require_few_groups("task.data.report.group", [*names, "x"])
