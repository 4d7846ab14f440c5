"""Whether a task tells completions of a model apart at all."""

from __future__ import annotations

from collections.abc import Sequence


def no_signal(who: str, right_BG: Sequence[Sequence[float]]) -> str | None:
    """A warning where all completions of a model are right, or all wrong, or graded alike; `who` names the model."""
    flat = [right for row in right_BG for right in row]
    if not flat or len(set(flat)) > 1:
        return None
    if 0 < flat[0] < 1:
        return f"all {len(flat):,} completions of {who} have a reward of {flat[0]:g}: the task gives no signal; look at what grades them"
    verdict = (
        "right: the task gives no signal; choose harder prompts"
        if flat[0]
        else "wrong: the task gives no signal; look at some of them, and at how answers are read (for maths task.answer_pattern)"
    )
    return f"all {len(flat):,} completions of {who} are {verdict}"
