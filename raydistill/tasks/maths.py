"""Questions with a mathematical answer, from a file or a hub data set; answers are compared by math-verify."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from raydistill.errors import InputError
from raydistill.tasks.data_files import Row
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.prompt import Prompt, Split

if TYPE_CHECKING:
    from raydistill.config.task import Where

_MARK = "####"


class Maths(DataTask):
    """A maths task over data sets.

    `answer_pattern` is a regular expression whose first group is the answer within the answer column (the last match
    counts); the answer itself is read as LaTeX or a plain number. `gold` is the column with a worked completion.
    """

    name = "maths"

    def __init__(
        self,
        data: Mapping[Split, str | None],
        question: str = "question",
        answer: str = "answer",
        gold: str | None = None,
        answer_pattern: str | None = None,
        limit: int | None = None,
        where: Where | None = None,
        drop_contaminated: bool = False,
    ) -> None:
        columns = {"task.question": question, "task.answer": answer} | ({"task.gold": gold} if gold else {})
        super().__init__(data, columns, limit, where, drop_contaminated)
        self._answer_pattern = _compiled(answer_pattern)

    def verify(self, prompt: Prompt, completion: str) -> bool:
        """Whether the answer in `completion` equals the prompt's. Has no time limit of its own: `Verifier` sets one.

        A line marked `####` holds the answer, the last one counts; without one math-verify looks for it (\\boxed, last number).
        """
        from math_verify import parse, verify

        # math-verify's own limits are signal alarms, which cannot stop C code and would fight with the verifier's.
        gold = parse(f"\\boxed{{{prompt.answer}}}", parsing_timeout=None)
        if not gold:
            raise ValueError(f"the answer {prompt.answer!r} is not a mathematical expression; answer_pattern may cut it out")
        return verify(gold, parse(_marked_answer(completion), parsing_timeout=None), timeout_seconds=None)

    def warm_up(self) -> None:
        """Import math-verify and build its parser: most of a second that no sample should be charged for."""
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no time limit
        self.verify(Prompt(id="", text="", answer="\\frac{1}{2}", gold=""), "$0.5$")

    def style(self, completion: str) -> str:
        """How the answer is marked: `boxed`, `hash` (`#### 42`) or `plain`."""
        if "\\boxed" in completion:
            return "boxed"
        return "hash" if _MARK in completion else "plain"

    def _prompt(self, row: Row) -> Prompt:
        question, answer = row.text("task.question"), row.text("task.answer")
        if self._answer_pattern:
            matches = list(self._answer_pattern.finditer(answer))
            found = (matches[-1][1] or "").strip() if matches else ""
            if not found:
                raise InputError(f"task.answer_pattern: finds no answer in row {row.number} of {row.source}: {answer[-60:]!r}")
            answer = found
        gold = row.text("task.gold") if "task.gold" in self._columns else ""
        return Prompt(id=hashlib.sha256(question.encode()).hexdigest()[:16], text=question, answer=answer, gold=gold)


def _marked_answer(completion: str) -> str:
    """The line after the last mark, or everything. Left to itself, math-verify takes "the answer to the previous step" for a mark."""
    _, mark, rest = completion.rpartition(_MARK)
    return rest.strip().partition("\n")[0] if mark else completion


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"task.answer_pattern: {pattern!r} is not a regular expression ({error})") from None
    if not compiled.groups:
        raise InputError(f"task.answer_pattern: {pattern!r} has no group; put the answer in parentheses, such as '#### (.*)'")
    return compiled
