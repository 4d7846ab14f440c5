"""What every task hands out: prompts, and whether a completion answers one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Protocol

from raydistill.config.data import Split

READ = 2**14
"""Characters at the end of a completion in which an answer is looked for: it stands at the end, and patterns, above all math-verify's, take
a time that grows with the square of the length."""


@dataclass(frozen=True)
class Prompt:
    """One question. `id` is unique within its task and stable between runs."""

    id: str
    text: str
    answer: str
    gold: str
    """A gold completion: what a student of the `sft_gold` baseline is trained on. Empty where the task has none."""
    options: tuple[str, ...] = ()
    """Of a multiple-choice question; `answer` is then the letter of the right one, A for the first. Empty for any other task."""
    group: str = field(default="", repr=False)  # by its repr a finished student is known, which groups are nothing to
    """Its level or category, where the task names a column of them and it is not empty."""


def hashed_id(text: str) -> str:
    """The id of a prompt from a data set: the same for what counts as the same question."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Task(Protocol):
    """A source of prompts with a verifier. Implementations are picklable: the verifier runs in other processes."""

    name: str

    def prompts(self, split: Split) -> list[Prompt]:
        """All prompts of a split, in an order that does not depend on the run. The splits share no prompt."""
        ...

    def verify(self, prompt: Prompt, completion: str) -> bool | float:
        """Whether the text of a completion is right; a float from 0 to 1 where that is a matter of degree.

        May be slow, loop for ever or crash: callers run it in `Verifier`.
        """
        ...

    def style(self, completion: str) -> str:
        """A name for the manner in which a completion is written; reported, never rewarded."""
        ...
