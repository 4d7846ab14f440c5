"""Whether a text does what it was asked for, by rule. Definitions follow IFEval (arXiv 2311.07911) where that needs no language.

Own code, since the packages that have IFEval's rules (lm-eval, if-verifiable) need nltk with English data fetched at run time and
langdetect.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import assert_never

from raydistill.config import checks

_WORD = re.compile(r"\w+")
_SENTENCE_END = re.compile(r"(?<![.!?])[.!?]++(?=\s|$)|[。！？]+")
_PARAGRAPH = re.compile(r"\n[^\S\n]*\n")
_BULLET = re.compile(r"^[^\S\n]*[-*+•][^\S\n]", re.MULTILINE)
_FENCE = "```"


def share_met(asked: Sequence[checks.Check], text: str) -> float:
    """Share of the checks that `text` meets. Raises ValueError without any."""
    if not asked:
        raise ValueError("a share of no checks")
    return sum(is_met(check, text) for check in asked) / len(asked)


def is_met(check: checks.Check, text: str) -> bool:
    """May take for ever where the check is an adversarial regular expression."""
    match check:
        case checks.Words() | checks.Sentences() | checks.Paragraphs() | checks.Bullets():
            return (check.at_least or 0) <= _count(check, text) <= (float("inf") if check.at_most is None else check.at_most)
        case checks.Contains():
            return all(_occurs(keyword, text) for keyword in check.keywords)
        case checks.Excludes():
            return not any(_occurs(keyword, text) for keyword in check.keywords)
        case checks.Case():
            return text.islower() if check.case == "lower" else text.isupper()
        case checks.StartsWith():
            return text.lstrip().startswith(check.text)
        case checks.EndsWith():
            return text.rstrip().endswith(check.text)
        case checks.Json():
            return _is_json(text)
        case checks.Matches():
            return re.search(check.pattern, text) is not None
        case _:
            assert_never(check)


def _count(check: checks.Words | checks.Sentences | checks.Paragraphs | checks.Bullets, text: str) -> int:
    match check:
        case checks.Words():
            return len(_WORD.findall(text))
        case checks.Sentences():
            return sum(bool(_WORD.search(part)) for part in _SENTENCE_END.split(text))
        case checks.Paragraphs():
            return sum(bool(part.strip()) for part in _PARAGRAPH.split(text))
        case checks.Bullets():
            return len(_BULLET.findall(text))


def _occurs(keyword: str, text: str) -> bool:
    return keyword.casefold() in text.casefold()


def _is_json(text: str) -> bool:
    text = text.strip()
    if text.startswith(_FENCE) and text.endswith(_FENCE):  # the first line may name the language
        text = text.removesuffix(_FENCE).partition("\n")[2]
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
