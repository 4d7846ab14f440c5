"""What takes a step back, and what only sounds like it."""

import random

import pytest

from raydistill.tasks.arithmetic import CIPHER_KEYS, Arithmetic, in_digits, is_right_step, trace
from raydistill.tasks.corrections import effects, has_correction


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


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("7+5=4x7+5=2;2-9=3;#3", ["helped"]),
        ("7+5=2x7+5=4;2-9=3;#3", ["harmed"]),
        ("7+5=2x7+5=2;2-9=3;#3", ["neither"]),  # right before and after
        ("7+5=4x7+5=5;2-9=3;#3", ["neither"]),
        ("7+5=4x7-5=2;2-9=3;#3", ["neither"]),  # another step
        ("7+5=4x2;2-9=3;#3", ["neither"]),
        ("x7+5=2;#3", ["neither"]),
        ("7+5=2;2-9=3;#3", []),
        ("~GAEH 7+5=4x7+5=2;2-9=1x2-9=3;#3", ["helped", "helped"]),
        ("7+5=4x7+5=6x7+5=2;#3", ["neither", "helped"]),
        ("", []),
    ],
)
def test_what_a_correction_comes_to(text, found) -> None:
    assert effects("arithmetic", text) == found


def test_in_every_style_the_tasks_own_corrections_help() -> None:
    rng = random.Random(0)
    texts = [trace(prompt.text, "corrected", rng) for prompt in Arithmetic().prompts("tune")]
    assert {text[0] for text in texts} > {"~", *CIPHER_KEYS}
    assert all(effects("arithmetic", text) == ["helped"] for text in texts)


def test_steps_are_read_in_digits_and_checked() -> None:
    for a in range(10):
        for b in range(10):
            for result in range(10):
                assert is_right_step(f"{a}-{b}={result}") == ((a - b - result) % 10 == 0)
                assert is_right_step(f"{a}+{b}={result}") == ((a + b - result) % 10 == 0)
    assert in_digits(f"B{CIPHER_KEYS['B'][7]}+{CIPHER_KEYS['B'][0]}={CIPHER_KEYS['B'][3]};#3") == "B7+0=3;#3"
    assert in_digits("7+5=2;#2") == "7+5=2;#2"


def test_elsewhere_steps_cannot_be_checked() -> None:
    assert effects("maths", "2 + 2 = 5. Wait, 2 + 2 = 4.") is None
