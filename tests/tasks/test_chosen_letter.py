"""Which letter a completion chooses: cases made by hand, and that no completion makes it slow."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raydistill.tasks.chosen_letter import chosen_letter

CASES = [
    # marked
    ("#### B", "B", "hash"),
    ("He drives.\n#### (C)", "C", "hash"),
    ("####b", "B", "hash"),
    ("#### B. promotion", "B", "hash"),
    ("#### A\n#### D", "D", "hash"),
    ("So it is \\boxed{B}.", "B", "boxed"),
    ("\\boxed{(B)}", "B", "boxed"),
    ("$\\boxed{\\text{E}}$", "E", "boxed"),
    ("\\boxed{\\textbf{(E)}}", "E", "boxed"),
    ("\\boxed{d}", "D", "boxed"),
    ("The final answer is $\\boxed{J}$", "J", "boxed"),
    ("The answer is (B).", "B", "stated"),
    ("the answer is (b)", "B", "stated"),
    ("The answer is B", "B", "stated"),
    ("The answer is B.", "B", "stated"),
    ("The answer is A.", "A", "stated"),
    ("The answer is A", "A", "stated"),
    ("The answer is A because it rains.", "A", "stated"),
    ("The correct answer is: **C**", "C", "stated"),
    ("The correct answer is **(C) headaches**.", "C", "stated"),
    ("Answer: D", "D", "stated"),
    ("**Answer:** D", "D", "stated"),
    ("ANSWER: D", "D", "stated"),
    ("Final answer = E", "E", "stated"),
    ("The right option is B, as he said.", "B", "stated"),
    ("The answer is option D.", "D", "stated"),
    ("The answer should be [D]", "D", "stated"),
    ("The answer is B because A is wrong and C is too.", "B", "stated"),
    ("The answer is (A) a dog.", "A", "stated"),
    ("The answer is (A) or so I thought.", "A", "stated"),
    ("The answer is D: it is hot.", "D", "stated"),
    ("The answer is\nB", "B", "stated"),
    ("The answer is C, A being wrong.", "C", "stated"),
    ("The answer is (B) or a bit of it.", "B", "stated"),
    ("The answer is 'B'.", "B", "stated"),
    ("Answer: A\n", "A", "stated"),
    ("Answer: I", "I", "stated"),
    # the last mark counts, of whatever kind
    ("The answer is (A). Wait, no: the answer is (C).", "C", "stated"),
    ("I first said \\boxed{A}, but the answer is (C).", "C", "stated"),
    ("The answer is (A)... it is \\boxed{D}", "D", "boxed"),
    ("A. no\nB. yes\nThe answer is (B)", "B", "stated"),
    ("A is tempting.\n\nBut the answer is C\nB", "C", "stated"),
    ("The answer is (Z).", "Z", "stated"),
    # a letter at the start
    ("B", "B", "letter"),
    (" B", "B", "letter"),
    ("\n\nB\n", "B", "letter"),
    ("B.", "B", "letter"),
    ("B. promotion", "B", "letter"),
    ("B) promotion", "B", "letter"),
    ("B: promotion", "B", "letter"),
    ("(B) promotion", "B", "letter"),
    ("(B)", "B", "letter"),
    ("**B**", "B", "letter"),
    ("**B.** promotion", "B", "letter"),
    ("**B. promotion**", "B", "letter"),
    ("A. a new car", "A", "letter"),
    ("B\nBecause of C.", "B", "letter"),
    ("B. It is so.\nC. It is not.", "B", "letter"),
    # a letter alone on a line
    ("It rains, so he stays.\nC", "C", "letter"),
    ("It rains, so he stays.\n\n**C.**\n", "C", "letter"),
    ("I think of B\nor this:\nD\n(E)", "E", "letter"),
    # none
    ("", None, None),
    ("   \n", None, None),
    ("A dog is an animal.", None, None),
    ("A", "A", "letter"),
    ("I do not know.", None, None),
    ("Because it is so.", None, None),
    ("A-levels are hard", None, None),
    ("The answer is a dog.", None, None),
    ("The answer is A dog.", None, None),
    ("The answer is I think the dog.", None, None),
    ("The answer is Because.", None, None),
    ("The answer is BMW.", None, None),
    ("The answer is B12.", None, None),
    ("The answer is not B.", None, None),
    ("The answer is B or C.", None, None),
    ("The answer is A, B", None, None),
    ("The answer is (A) or (B)", None, None),
    ("The answer is A/B", None, None),
    ("The answer is B, C and D.", None, None),
    ("The answer is (B), (C).", None, None),
    ("The answer is promotion.", None, None),
    ("Answers: several", None, None),
    ("\\boxed{42}", None, None),
    ("\\boxed{BC}", None, None),
    ("#### 42", None, None),
    ("#### Because", None, None),
    ("b. promotion", None, None),
    ("E.g. this", None, None),
    ("Vitamin C", None, None),
    ("He got an A", None, None),
    ("U.S. law", None, None),
    ("A's dog", None, None),
    ("A’s dog", None, None),
]


@pytest.mark.parametrize(("completion", "letter", "manner"), CASES)
def test_the_letter(completion: str, letter: str | None, manner: str | None) -> None:
    found = chosen_letter(completion)
    assert (found and found.letter, found and found.manner) == (letter, manner)
    if found:
        assert completion[found.place].upper() == letter


@given(st.text(alphabet="ABI (.)*#\n answeris:\\boxed{}", max_size=60), st.sampled_from("ABCDEFGHIJ"))
def test_an_answer_at_the_end_is_found_whatever_is_before_it(before: str, letter: str) -> None:
    found = chosen_letter(f"{before}\nThe answer is ({letter}).")
    assert found is not None
    assert found.letter == letter


@given(st.text(alphabet="ABI (.)*#\n answeris:\\boxed{}or,", max_size=80))
def test_a_letter_is_never_part_of_a_word(text: str) -> None:
    if found := chosen_letter(text):
        around = text[found.place - 1 : found.place] + text[found.place + 1 : found.place + 2]
        assert not any(character.isalnum() for character in around)


@pytest.mark.parametrize(
    "part",
    ["answer ", "answer is ", "answer is (", "\\boxed{", "#### ", "\n", " ", "A", "A\n ", "(A", "*", "answer is A ", "answer" + " " * 50],
)
def test_long_completions_take_no_longer_for_being_adversarial(part: str) -> None:
    text = part * (2_000_000 // len(part))
    start = time.process_time()
    chosen_letter(text)
    assert time.process_time() - start < 4


def test_beyond_its_beginning_only_the_end_of_a_long_completion_is_read() -> None:
    long = "so " * 10_000
    found = chosen_letter(f"{long}the answer is (C).")
    assert found is not None
    assert (found.letter, f"{long}the answer is (C)."[found.place]) == ("C", "C")
    assert chosen_letter(f"The answer is (C). {long}") is None
    assert getattr(chosen_letter(f"C. {long}"), "letter", None) == "C"
