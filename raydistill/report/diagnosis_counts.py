"""What a diagnosis could not check, or left out, in sentences."""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.report.scores import Json


def counted(found: Json) -> Iterator[str]:
    """One for each model or pair of which there was any. `found` is the content of diagnosis.json, which was without counts once."""
    for name, counts in found.get("verifier_failures", {}).items():
        yield from _failures(f"the {name}", counts)
    yield from _too_long(found, "the student")
    if after := found.get("after"):
        name = "the student after distillation"
        yield from _failures(name, after.get("verifier_failures", {}))
        yield from _too_long(after, name)


def _failures(who: str, counts: Json) -> Iterator[str]:
    if any(counts.values()):
        yield (
            f"Checks that failed, by time, a crash or a reward that is no number, and count as wrong: {counts['completions']:,} of {who}'s "
            f"completions, and {counts['continuations']:,} of its continuations of cut traces."
        )


def _too_long(found: Json, student: str) -> Iterator[str]:
    counts = found["traps"]["gap"].get("too_long", {})
    if any(counts.values()):
        yield (
            f"Left out of the gap between the teacher and {student}, as in its own tokens a model's context does not hold them: "
            f"{counts['teacher']:,} completions of the teacher and {counts['student']:,} of {student}."
        )
