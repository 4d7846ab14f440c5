"""What the check of one completion came to, and who checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from raydistill.tasks.prompt import Prompt


class Outcome(StrEnum):
    RIGHT = "right"
    WRONG = "wrong"
    TIMEOUT = "timeout"
    CRASHED = "crashed"

    @property
    def failed(self) -> bool:
        """The check itself failed: nothing is known of the completion."""
        return self in (Outcome.TIMEOUT, Outcome.CRASHED)

    @property
    def reward(self) -> bool:
        """Whether it is right; a check that failed counts as wrong."""
        return self is Outcome.RIGHT


@dataclass(frozen=True)
class Graded:
    """The outcome of a task whose answers are better or worse, not right or wrong."""

    reward: float
    """From 0, the worst and what a check that failed counts as, to 1."""

    @property
    def failed(self) -> bool:
        return False


Checked = Outcome | Graded


class Checker(Protocol):
    """Checks completions of one task, wherever it does so."""

    def verify(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Sequence[Checked]:
        """The outcome of each completion of the prompt at the same place, in order. Raises RunError where it cannot work."""
        ...

    def close(self) -> None:
        """End what it started. It cannot be used again."""
        ...
