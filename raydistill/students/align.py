"""Where two tokenisations of one text meet: spans of tokens that cover the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from raydistill.errors import InputError


@dataclass(frozen=True)
class Span:
    """Consecutive tokens of either side that cover the same bytes."""

    student: range
    """Places of the student's tokens in its completion; never empty."""
    teacher: range
    bytes: range
    """Places of the bytes in the text; empty for the end tokens alone."""


def align(student: Sequence[bytes], teacher: Sequence[bytes], text: str, ended: bool) -> list[Span]:
    """The finest spans that both tokenisations of a completion have: one begins at each byte where both begin a token.

    `student` and `teacher` are the tokens as `Spelling.spell` gives them. If the text `ended`, the last token of each is its end
    token, which has no bytes and is a span of its own. The spans cover all bytes and all tokens, in order.

    Raises InputError for a text that has no tokens on one side.
    """
    size = len(text.encode())
    students = token_places(student[:-1] if ended else student, text)
    teachers = token_places(teacher[:-1] if ended else teacher, text)
    spans = [
        Span(range(students[start], students[end]), range(teachers[start], teachers[end]), range(start, end))
        for start, end in pairwise(sorted(students.keys() & teachers.keys()))
    ]
    if ended:
        spans.append(Span(range(len(student) - 1, len(student)), range(len(teacher) - 1, len(teacher)), range(size, size)))
    return spans


def token_places(tokens: Sequence[bytes], text: str) -> dict[int, int]:
    """For each byte of the text at which a token is known to begin, the place of that token; and the end of both.

    A place counts where the tokens before it spell just what comes before that byte, or those from it on what comes after. So a
    space put before the text shifts nothing, and what a tokenizer normalises, drops or does not know costs the places around it.
    Tokens without bytes belong to what follows them.

    Raises InputError for a text that has no tokens.
    """
    given, spelled = text.encode(), b"".join(tokens)
    if bool(given) != bool(tokens):
        raise InputError(
            f"a text of {len(given)} bytes becomes {len(tokens)} tokens and cannot be aligned; its tokenizer must know it: {text[:80]!r}"
        )
    before, after = _agreement(spelled, given)
    places: dict[int, int] = {}
    for place, start in enumerate(accumulate(map(len, tokens[:-1]), initial=0)):
        to_end = len(spelled) - start
        bytes_ = {start} if start <= before else set()
        if to_end <= after:
            bytes_.add(len(given) - to_end)
        if len(bytes_) == 1:
            places.setdefault(bytes_.pop(), place)
    return places | {0: 0, len(given): len(tokens)}


def _agreement(spelled: bytes, given: bytes) -> tuple[int, int]:
    """How many bytes agree from the start on and up to the end; no byte counts for both, nor for either where it might."""
    if spelled == given:
        return len(given), len(given)
    shorter = min(len(spelled), len(given))
    before, after = _common_prefix(spelled, given), _common_prefix(spelled[::-1], given[::-1])
    return min(before, shorter - after), min(after, shorter - before)


def _common_prefix(one: bytes, other: bytes) -> int:
    return next((place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
