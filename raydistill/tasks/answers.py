"""Where in a completion its final answer is written."""

from __future__ import annotations

import re

from raydistill.tasks.chosen_letter import chosen_letter

_MARKS = {"arithmetic": "#", "maths": "####"}
_BRACES = re.compile(r"\\(?:boxed|fbox)\s*\{|(?<!\\)[{}]")
_NUMBER = re.compile(r"-?\d+(?:,\d+)*(?:\.\d+)?")


def answer_span(task: str, text: str) -> tuple[int, int] | None:
    """Start and end of the answer in `text`, in UTF-8 bytes, for a task of this name; None where it has none.

    Of a multiple-choice task, the letter that is chosen. Otherwise the rest of the line after the task's last mark; without a mark,
    what is in the last \\boxed; without that, the last number.
    """
    if task == "choice":
        found = (chosen.place, chosen.place + 1) if (chosen := chosen_letter(text)) else None
    else:
        found = _marked(text, _MARKS[task]) or _last_box(text) or _last_number(text)
    return None if found is None else (len(text[: found[0]].encode()), len(text[: found[1]].encode()))


def _marked(text: str, mark: str) -> tuple[int, int] | None:
    before, found, rest = text.rpartition(mark)
    line = rest.lstrip().partition("\n")[0].rstrip()
    start = len(before) + len(found) + len(rest) - len(rest.lstrip())
    return (start, start + len(line)) if found and line else None


def _last_box(text: str) -> tuple[int, int] | None:
    found = [(start, end) for start, end in boxes(text) if end > start]
    return found[-1] if found else None


def boxes(text: str) -> list[tuple[int, int]]:
    """Start and end, in characters, of what is in each \\boxed{...} or \\fbox{...} that is closed and holds none itself, in order."""
    found: list[tuple[int, int]] = []
    opened: list[int] = []
    for piece in _BRACES.finditer(text):
        if piece[0] != "}":
            opened.append(piece.end() if len(piece[0]) > 1 else -1)
        elif opened and (start := opened.pop()) >= 0:
            found += [(start, piece.start())] if not found or found[-1][0] < start else []
    return found


def _last_number(text: str) -> tuple[int, int] | None:
    numbers = list(_NUMBER.finditer(text))
    return numbers[-1].span() if numbers else None
