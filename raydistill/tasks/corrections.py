"""What a trace says where it takes back a step."""

from __future__ import annotations

import re
from typing import Literal

from raydistill.tasks.arithmetic import CORRECTION, in_digits, is_right_step

_WORDS = re.compile(
    r"\b(?:wait|hold on|scratch that|on second thoughts?|correction|(?:let me|let's|let us|i'll) (?:re-?|double-?)?check(?: again)?"
    r"|(?:made|was|is|there's) (?:a|an|my) (?:mistake|error)|my mistake|(?:that|this) (?:is|was) (?:not right|wrong|incorrect)"
    r"|(?:that|this) isn't right|i (?:miscalculated|misread|was wrong))\b",
    re.IGNORECASE,
)
_MARKS = {"arithmetic": re.compile(re.escape(CORRECTION))}
_DONE_AGAIN = re.compile(rf"(?P<first>(?P<left>\d[+-]\d=)\d)?{re.escape(CORRECTION)}(?:(?=(?P<again>(?P=left)\d)))?")
Effect = Literal["helped", "harmed", "neither"]


def has_correction(task: str, text: str) -> bool:
    """Whether a completion takes a step back: by the task's own mark, else in English (`wait`, `let me check`, `made a mistake` ...).

    Words are a rough sign: they are also said of what was right, and a step can be done again without any.
    """
    return _MARKS.get(task, _WORDS).search(text) is not None


def effects(task: str, text: str) -> list[Effect] | None:
    """What each of a text's corrections comes to, by the result of the step before and after it; None where steps cannot be checked.

    It `helped` where a wrong result became a right one, and `harmed` where a right one became a wrong one. All else is `neither`: a right
    step done again rightly, a wrong one still wrong, and what is not the same step done again. Right is what the step's own left side
    comes to.
    """
    if task != "arithmetic":
        return None
    return [_effect(found) for found in _DONE_AGAIN.finditer(in_digits(text))]


def _effect(found: re.Match[str]) -> Effect:
    if not (found["first"] and found["again"]):
        return "neither"
    before, after = is_right_step(found["first"]), is_right_step(found["again"])
    if before == after:
        return "neither"
    return "helped" if after else "harmed"
