"""Whether a data set's own worked completions pass its own check."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from raydistill.tasks.outcome import Outcome
from raydistill.tasks.verifier import Verifier

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt, Task

LOOKED_AT = 100
"""Prompts, so that reading a data set stays a matter of seconds."""
_SECONDS = 2.0


def gold_warnings(task: Task, prompts: Sequence[Prompt]) -> tuple[str, ...]:
    """A warning where gold completions, of the first that have one, are not right or cannot be checked in time."""
    looked_at = [prompt for prompt in prompts if prompt.gold][:LOOKED_AT]
    if not looked_at:
        return ()
    with Verifier(task, 1, _SECONDS) as verifier:  # a gold completion, too, may keep a parser busy for ever
        outcomes = verifier.verify(looked_at, [prompt.gold for prompt in looked_at])
    failed = [prompt for prompt, outcome in zip(looked_at, outcomes, strict=True) if outcome is not Outcome.RIGHT]
    if not failed:
        return ()
    first = failed[0]
    return (
        f"task.gold: {len(failed)} of {len(looked_at)} gold completions do not pass the task's own check, such as one that ends in "
        f"{first.gold[-40:]!r} where the answer is {first.answer[:40]!r}; completions written like them count as wrong",
    )
