"""Which option a completion chooses, by its letter.

What counts, in this order; of several of one kind the last:

1. a marked answer, whichever of these comes last: `#### B`; `\\boxed{B}`, also `\\boxed{\\text{(B)}}`; "answer is (B)", "Answer: B",
   "correct option is B" and the like, with or without brackets, asterisks or a dollar sign;
2. the letter that begins the completion, alone on its line or before a full stop, bracket or colon: `B`, `(B)`, `B. promotion`;
3. a letter alone on a line, as in 2.

A letter is a word of its own. Bare letters are capitals; in brackets, boxes and after `####` small ones count too. After "answer is",
a bare A or I that a word follows is taken for an article or a pronoun ("the answer is A dog"), unless a reason follows ("A because"),
and "B or C" and "A, B" choose nothing. A letter that stands for no option is an answer all the same, a wrong one. But for the
beginning, only the last READ characters are looked at.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass

from raydistill.tasks.prompt import READ

# Every repetition is bounded: a completion may be of any length and made to be slow.
_OPEN = r"[\s*_$\"'`]{0,6}"
_WRAPPED = r"(?:\\(?:text|textbf|mathbf|mathrm)\{)?"
_END = r"(?![\w-]|['’]\w)"  # "A-levels", "A's"; but 'A' in quotes
_OTHER = r"\s{0,3}\(?(?-i:[A-Z])\b"
_HEDGE = rf"(?!\)?\s{{0,3}}(?:(?:/|&|\bor\b|\band\b){_OTHER}|,{_OTHER}\)?\s{{0,3}}(?:$|[.,;]|and\b|or\b)))"
_BARE = (
    rf"(?:(?-i:(?P<bare>[B-HJ-Z])){_END}|(?-i:(?P<word>[AI])){_END}"
    r"(?=[^\S\n]{0,6}(?:$|[^\w\s]|\n|because\b|since\b|as\b)))"
)
_MARKED = re.compile(
    rf"\#{{4}}{_OPEN}\(?(?P<hash>[A-Z]){_END}"
    rf"|\\boxed\s{{0,3}}\{{{_OPEN}{_WRAPPED}\s{{0,3}}\(?(?P<boxed>[A-Z])\)?[.:]?\s{{0,3}}\}}"
    rf"|\b(?:answer|option|choice)\b{_OPEN}(?:is\b|:|=|would\s{{1,3}}be\b|should\s{{1,3}}be\b){_OPEN}:?{_OPEN}"
    rf"(?:(?:the\s{{1,3}})?(?:option|choice|letter)\s{{1,3}})?{_OPEN}(?:[(\[](?P<bracketed>[A-Z])[)\]]|{_BARE}){_HEDGE}",
    re.IGNORECASE,
)
_ALONE = rf"[ \t*_]{{0,6}}(?:\((?P<bracketed>[A-Z])\)|(?P<bare>[A-Z]){_END})[*_]{{0,3}}"
_LEADING = re.compile(rf"{_ALONE}(?:[.):][*_]{{0,3}}(?!\w)|[ \t]{{0,6}}(?:\n|\Z))|[ \t*_]{{0,6}}\((?P<other>[A-Z])\)")
_LINE = re.compile(rf"^{_ALONE}[.)]?[*_]{{0,3}}[ \t\r]{{0,6}}$", re.MULTILINE)


@dataclass(frozen=True)
class Chosen:
    """A letter that was found in a completion."""

    letter: str
    """A capital."""
    place: int
    """Of the letter, in characters."""
    manner: str
    """`hash`, `boxed`, `stated` ("the answer is"), or `letter` for one that stands by itself."""


def chosen_letter(completion: str) -> Chosen | None:
    """The option that a completion chooses, by the rules above; None where it has no such letter."""
    before = max(0, len(completion) - READ)
    if marked := _last(_MARKED, completion[before:]):
        return _chosen(marked, {"hash": "hash", "boxed": "boxed"}.get(marked.lastgroup or "", "stated"), before)
    start = len(completion) - len(completion.lstrip())
    if leading := _LEADING.match(completion[start : start + 32]):
        return _chosen(leading, "letter", start)
    line = _last(_LINE, completion[before:])
    return _chosen(line, "letter", before) if line else None


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = deque(pattern.finditer(text), maxlen=1)
    return found[0] if found else None


def _chosen(match: re.Match[str], manner: str, offset: int) -> Chosen:
    group = match.lastgroup or 0
    return Chosen(match[group].upper(), offset + match.start(group), manner)
