"""What a diagnosis left out or could not check, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.report.scores import Json


def counted(found: Json) -> Iterator[str]:
    """One for each kind that there was any of; `found` is the content of diagnosis.json."""
    yield from _too_long(found["traps"]["gap"]["too_long"], "the student")
    if after := found.get("after"):
        yield from _too_long(after["traps"]["gap"]["too_long"], "the student after distillation")


def _too_long(counts: Json, student: str) -> Iterator[str]:
    if any(counts.values()):
        yield (
            f"Left out of the gap between the teacher and {student}, as in its own tokens a model's context does not hold them: "
            f"{counts['teacher']:,} completions of the teacher and {counts['student']:,} of {student}."
        )
