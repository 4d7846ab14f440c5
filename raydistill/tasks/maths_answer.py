"""Whether a completion's answer equals a gold answer: what is read of it, how it is normalised, and the comparison by math-verify.

The number with its unit, currency or percent sign is the same answer as the bare number; with another unit it is not, even where one
converts into the other. 50% is 50 and also 0.5. Nothing is rounded before the sixth decimal. tests/tasks/answer_pairs.jsonl has examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal

from raydistill.tasks.answers import boxes
from raydistill.tasks.prompt import READ

MARK = "####"

_UNIT_NAMES = """
mm millimeter millimetre, cm centimeter centimetre, m meter metre, km kilometer kilometre, in inch inche, ft foot feet, yd yard, mi mile,
s sec second, min minute, h hr hour, day, week, month, yr year, mg milligram, g gram, kg kilogram, lb pound, oz ounce, ton,
ml mL milliliter millilitre, l L liter litre, gal gallon, dollar, cent, euro, rad radian, deg degree
"""
_UNITS = {word: names.split()[0] for names in _UNIT_NAMES.split(",") for word in names.split()}
"""Unit, in the singular and with its short forms -> the name it is compared by."""
_IN_TEXT = r"\\(?:text|mathrm|mbox|textrm)\s*\{[\s~]*([A-Za-z]+)"
_PLAIN = r"((?!in\b)[A-Za-z]{2,})"  # a bare letter may be a variable, "5 in" may go on with "the box"
_UNIT = re.compile(rf"(?<![\d,.])(\d[\d,.]*)[\s~]*(?:\\[,;:! ]\s*)?(?:{_IN_TEXT}|{_PLAIN})|{_IN_TEXT}")
_BASE = re.compile(r"^[\dA-F]+_(?:\{?(\d+)\}?)$")

_SIGNS = str.maketrans({"\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " "})
_SEPARATOR = re.compile(r"(?<=\d)(?:\{,\}|\\[,!]|,\\!)(?=\d{3}(?!\d))")
_EXPONENT = re.compile(r"(?<![\w.\\])(\d+(?:\.\d+)?)[eE]([+-]?\d{1,2})(?!\w|\.\d)")
_MIXED = re.compile(r"(?<![\w.,/^}])(\d{1,9}) (\d{1,9})/(\d{1,9})(?!\d|/|\.\d)")
_MIXED_LATEX = re.compile(r"(?<![\w.,/^}])(\d{1,9})\s*\\[dt]?frac\s*(?:\{(\d{1,9})\}\s*\{(\d{1,9})\}|(\d)\s*(\d))")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)\b")
_DEGREES = re.compile(r"(\d+(?:\.\d+)?)\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})")
_BOX = "\\boxed{"
_SHORT = 100
"""Characters of a line that is read as words: math-verify's time for letters grows with the square of their number."""
_DIGIT = re.compile(r"\d")
_IN_MARKUP = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mbox)\s*\{([^{}]*)\}")
_ONLY_WORDS = re.compile(r"[^\W\d_]+(?:[ '\u2019-]+[^\W\d_]+)*")
_WORD = re.compile(r"\b(?!(?i:and|or)\b)[^\W\d_]{3,}")
_NEAR = 40
_JOINED = re.compile(r"[\s$,;.]*(?:\\text\s*\{\s*)?(?:and|or)?(?:\s*\})?[\s$]*(?:[a-z]\s*=\s*)?")


def same_answer(gold: str, completion: str) -> bool:
    """Whether `completion` ends in the answer `gold`. Raises ValueError if `gold` is no mathematical expression.

    Has no time limit: math-verify's own limits are signal alarms, which cannot stop C code and would fight with the verifier's.
    """
    from math_verify import parse, verify

    gold = _normalised(gold)
    found = _normalised(final_answer(completion))
    if _other_base(gold, found) or _other_unit(gold, found):
        return False
    words, said = _words(gold), _words(found)
    if said is not None and found.startswith(_BOX) and (words is not None or _DIGIT.search(gold)):
        return said == words  # to math-verify they are products of letters, slow to read and equal to any anagram
    parsed = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    if not parsed:
        raise ValueError(f"the answer {gold!r} is not a mathematical expression; answer_pattern may cut it out")
    return verify(parsed, parse(found, parsing_timeout=None), timeout_seconds=None)


def final_answer(completion: str) -> str:
    """The part of a completion that math-verify is to read: what it says last, of its last READ characters.

    A line marked `####` holds the answer, the last one counts; without one it is the last \\boxed, with those before it that only
    "and", "or" or a comma separate; without one it is everything. A short marked line without a digit is read as a box: math-verify
    finds words and letters nowhere else.
    """
    end = completion[-READ:]
    _, mark, rest = end.rpartition(MARK)
    if mark:  # left to itself, math-verify takes "the answer to the previous step" for a mark
        end = rest.strip().partition("\n")[0].rstrip()
    boxed = boxed_answer(end)
    if mark and not boxed and len(end) <= _SHORT and not _DIGIT.search(end):
        boxed = end.strip(" *.")
    return f"{_BOX}{boxed}}}" if boxed else end


def boxed_answer(text: str) -> str:
    """What is in the last \\boxed, and in those before it that only "and", "or" or a comma separate from it; "" without one."""
    return ", ".join(reversed(list(_last_boxes(text))))


def _last_boxes(text: str) -> Iterator[str]:
    """What is in the last box, then what is in those before it as long as they are parts of the same answer."""
    after: int | None = None
    for start, stop in reversed(boxes(text)):
        if after is not None and not (after - stop < _NEAR and _JOINED.fullmatch(text, stop + 1, after)):
            return
        yield text[start:stop]
        after = text.rindex("\\", 0, start)


def _normalised(text: str) -> str:
    """Spellings that math-verify does not read, as those that it does."""
    text = _SEPARATOR.sub("", text.translate(_SIGNS))
    text = _EXPONENT.sub(lambda found: f"{Decimal(found[0]):f}", text)
    text = _MIXED.sub(lambda found: _improper(found[0], "{}/{}", *map(int, found.groups())), text)
    text = _MIXED_LATEX.sub(lambda found: _improper(found[0], "\\frac{{{}}}{{{}}}", *(int(n) for n in found.groups() if n)), text)
    return _DEGREES.sub(r"(\1 \\cdot \\frac{\\pi}{180})", text) if _TRIGONOMETRY.search(text) else text


def _improper(spelled: str, form: str, whole: int, numerator: int, denominator: int) -> str:
    """A mixed number as a fraction; as it was `spelled` if its fraction is not below one, for then it is not a mixed number."""
    return form.format(whole * denominator + numerator, denominator) if numerator < denominator else spelled


def _words(text: str) -> str | None:
    """Words, as they are compared: without case, mark-up and a full stop. None for mathematics, and for letters: no word of three."""
    plain = _IN_MARKUP.sub(r"\1", boxed_answer(text) or text).strip(" $*.")
    return " ".join(plain.casefold().split()) if _ONLY_WORDS.fullmatch(plain) and _WORD.search(plain) else None


def _other_unit(gold: str, found: str) -> bool:
    """Whether the gold answer has a unit, and its number in `found` has, where it is last, another one."""
    units = list(_units(gold))
    if not units:
        return False
    number, unit = units[-1]
    same = [other for spelled, other in _units(found) if number is None or spelled is None or spelled == number]
    return bool(same) and same[-1] != unit


def _units(text: str) -> Iterator[tuple[str | None, str]]:
    """Units of measurement, each with the number right before it if there is one."""
    for number, in_text, plain, alone in _UNIT.findall(text):
        word = in_text or plain or alone
        if unit := _UNITS.get(word) or _UNITS.get(word.lower().removesuffix("s")):
            yield number.replace(",", "") or None, unit


def _other_base(gold: str, found: str) -> bool:
    bases = [_base(gold), _base(found)]
    return None not in bases and bases[0] != bases[1]


def _base(text: str) -> str | None:
    """The base of a number such as `1010_2`, or None."""
    inner = text.removeprefix("\\boxed{").removesuffix("}") if text.startswith("\\boxed{") else text
    found = _BASE.match(inner.strip(" $."))
    return found[1] if found else None
