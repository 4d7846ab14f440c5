"""What takes a step back, and what only sounds like it."""

import pytest

from raydistill.tasks.corrections import has_correction


@pytest.mark.parametrize(
    "text",
    [
        "12 - 3 = 8. Wait, that is 9.",
        "Let me re-check: 4 * 5 = 20.",
        "Let's double-check the sum.",
        "I made a mistake above.",
        "That is not right, so again:",
        "Hold on.",
    ],
)
def test_words_of_a_correction_are_found(text: str) -> None:
    assert has_correction("maths", text)


@pytest.mark.parametrize(
    "text", ["He awaits 3 buses.", "The waiter gets $5.", "x = 4x - 2", "A check of $20 is paid.", "", "The error is 3 %."]
)
def test_other_words_are_not(text: str) -> None:
    assert not has_correction("maths", text)


def test_arithmetic_has_a_mark_of_its_own() -> None:
    assert has_correction("arithmetic", "7+5=4x7+5=2;2-9=3;#3")
    assert not has_correction("arithmetic", "7+5=2;2-9=3;#3")
