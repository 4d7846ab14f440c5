"""What a trace says where it takes back a step."""

from __future__ import annotations

import re

from raydistill.tasks.arithmetic import CORRECTION

_WORDS = re.compile(
    r"\b(?:wait|hold on|scratch that|on second thoughts?|correction|(?:let me|let's|let us|i'll) (?:re-?|double-?)?check(?: again)?"
    r"|(?:made|was|is|there's) (?:a|an|my) (?:mistake|error)|my mistake|(?:that|this) (?:is|was) (?:not right|wrong|incorrect)"
    r"|(?:that|this) isn't right|i (?:miscalculated|misread|was wrong))\b",
    re.IGNORECASE,
)
_MARKS = {"arithmetic": re.compile(re.escape(CORRECTION))}


def has_correction(task: str, text: str) -> bool:
    """Whether a completion takes a step back: by the task's own mark, else in English (`wait`, `let me check`, `made a mistake` ...).

    Words are a rough sign: they are also said of what was right, and a step can be done again without any.
    """
    return _MARKS.get(task, _WORDS).search(text) is not None
