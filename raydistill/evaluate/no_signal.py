"""Whether a task tells completions of a model apart at all."""

from __future__ import annotations

from collections.abc import Sequence


def no_signal(who: str, right_BG: Sequence[Sequence[float]], failures: int) -> str | None:
    """A warning where all completions of a model are right, or all wrong, or graded alike; `who` names the model.

    `failures` counts checks that failed, whose completions count as wrong.
    """
    flat = [right for row in right_BG for right in row]
    if not flat or len(set(flat)) > 1:
        return None
    if 0 < flat[0] < 1:
        return f"all {len(flat):,} completions of {who} have a reward of {flat[0]:g}: the task gives no signal; look at what grades them"
    told = f"all {len(flat):,} completions of {who} are"
    if flat[0]:
        return f"{told} right: the task gives no signal; choose harder prompts"
    cure = "look at some of them, and at how answers are read (for maths task.answer_pattern)"
    if not failures:
        return f"{told} wrong: the task gives no signal; {cure}"
    return (
        f"{told} wrong, and {failures:,} checks failed: the task gives no signal; look at why they did (verifier.timeout; a reward model "
        f"that gives no number), then {cure}"
    )
