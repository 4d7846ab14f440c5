"""Completions of 10 MB and ones that keep a parser or a regular expression busy: counted at the time limit or before it, alone."""

from __future__ import annotations

import time

import pytest

from raydistill.tasks.maths import Maths
from raydistill.tasks.maths_answer import final_answer
from raydistill.tasks.prompt import READ, Prompt
from raydistill.tasks.verifier import Outcome, Verifier

PROMPT = Prompt(id="p", text="", answer="18", gold="")
SIZE = 10 * 2**20
TIMEOUT = 1.5


def fill(piece: str, size: int = SIZE) -> str:
    return piece * (size // len(piece))


LONG = {
    "digits": fill("9"),
    "boxed digits": "\\boxed{" + fill("9") + "}",
    "marked digits": "#### " + fill("9"),
    "braces": fill("{"),
    "nested braces": fill("{", SIZE // 2) + fill("}", SIZE // 2),
    "opened boxes": fill("\\boxed{"),
    "nested boxes": fill("\\boxed{", SIZE // 2) + "18" + fill("}", SIZE // 2),
    "joined boxes": fill("\\boxed{1} and "),
    "marks": fill("#### "),
    "marked lines": fill("#### 1\n"),
    "mixed numbers": fill("1 1/2 "),
    "numbers apart": fill("1 000 "),
    "brackets": "\\boxed{" + fill("(", SIZE // 2) + fill(")", SIZE // 2) + "}",
    "fractions": fill("\\frac{1}{"),
    "a sum": "\\boxed{" + fill("1+") + "1}",
    "spaces": "#### 18" + fill(" "),
    "null bytes": fill("\0"),
}
CATASTROPHIC = {
    "quadratic patterns": fill("\\[", READ),
    "a tower of powers": "\\boxed{9^{9^{9^{9^{9}}}} + 1}",
    "a factorial": "\\boxed{(10^9)!}",
    "an expansion": "\\boxed{(x+y+z+w)^{500}}",
}


@pytest.fixture(scope="module")
def verifier():
    with Verifier(Maths({"train": "unread.jsonl"}), 2, TIMEOUT) as verifier:
        yield verifier


def check(verifier: Verifier, completion: str) -> Outcome:
    """The outcome of a completion among right and wrong ones, which must keep theirs."""
    start = time.monotonic()
    before, outcome, after, last = verifier.verify([PROMPT] * 4, ["#### 18", completion, "\\boxed{18}", "#### 19"])
    seconds = time.monotonic() - start
    print(f"{outcome} after {seconds:.2f} s")
    assert (before, after, last) == (Outcome.RIGHT, Outcome.RIGHT, Outcome.WRONG)
    assert seconds < TIMEOUT + 20.0  # a worker that was ended is replaced, which takes a second or, on a busy machine, more
    return outcome


@pytest.mark.parametrize("name", list(LONG))
def test_ten_megabytes_are_wrong_or_time_out(verifier: Verifier, name: str) -> None:
    assert check(verifier, LONG[name]) in (Outcome.WRONG, Outcome.TIMEOUT)


@pytest.mark.parametrize("name", list(CATASTROPHIC))
def test_a_catastrophic_completion_ends_at_the_time_limit(verifier: Verifier, name: str) -> None:
    assert check(verifier, CATASTROPHIC[name]) is Outcome.TIMEOUT


def test_an_answer_at_the_end_of_ten_megabytes_is_found(verifier: Verifier) -> None:
    assert check(verifier, fill("It is so. ") + "\n#### 18") is Outcome.RIGHT
    assert len(final_answer(fill("9"))) == READ
