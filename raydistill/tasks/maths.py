"""Questions with a mathematical answer, from a file or a hub data set; answers are compared by math-verify."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from raydistill.errors import InputError
from raydistill.tasks.data_files import Row
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.maths_answer import MARK, boxed_answer, same_answer
from raydistill.tasks.prompt import Prompt, Split, hashed_id
from raydistill.tasks.source import Given

if TYPE_CHECKING:
    from raydistill.config.data import Where


class Maths(DataTask):
    """A maths task over data sets.

    `answer_pattern` is a regular expression whose first group is the answer within the answer column (the last match
    counts), or "boxed" for what is in its last \\boxed; the answer itself is read as LaTeX or a plain number. `gold` is the
    column with a worked completion.
    """

    name = "maths"
    columns = ("question", "answer", "gold", "group")

    def __init__(
        self,
        data: Mapping[Split, Given | None],
        question: str = "question",
        answer: str = "answer",
        gold: str | None = None,
        answer_pattern: str | None = None,
        limit: int | None = None,
        where: Where | None = None,
        group: str | None = None,
        drop_contaminated: bool = False,
    ) -> None:
        settings = {"question": question, "answer": answer, "gold": gold, "answer_pattern": answer_pattern, "where": where, "group": group}
        super().__init__(data, settings, limit, drop_contaminated)
        for source in self._sources.values():
            _compiled(source.field_of("answer_pattern"), source.settings["answer_pattern"])  # a bad one is refused at once

    def verify(self, prompt: Prompt, completion: str) -> bool:
        """Whether the answer in `completion` equals the prompt's, see `maths_answer`. Has no time limit of its own: `Verifier` sets one."""
        return same_answer(prompt.answer, completion)

    def warm_up(self) -> None:
        """Import math-verify and build its parser: most of a second that no sample should be charged for."""
        logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that it has no time limit
        self.verify(Prompt(id="", text="", answer="\\frac{1}{2}", gold=""), "$0.5$")

    def style(self, completion: str) -> str:
        """How the answer is marked: `boxed`, `hash` (`#### 42`) or `plain`."""
        if "\\boxed" in completion:
            return "boxed"
        return "hash" if MARK in completion else "plain"

    def _prompt(self, row: Row) -> Prompt:
        question, answer = row.text("question"), row.text("answer")
        field = row.source.field_of("answer_pattern")
        found = _answer_in(answer, _compiled(field, row.source.settings["answer_pattern"])).strip()
        if not found:
            raise InputError(f"{field}: finds no answer in {row}: {answer[-60:]!r}")
        gold, group = row.text_if_any("gold"), row.text_if_any("group")
        return Prompt(id=hashed_id(question), text=question, answer=found, gold=gold, group=group)


Pattern = re.Pattern[str] | Literal["boxed"] | None


def _answer_in(answer: str, pattern: Pattern) -> str:
    """The answer within the text of the answer column, or "" where the pattern finds none."""
    if pattern is None:
        return answer
    if isinstance(pattern, re.Pattern):
        matches = list(pattern.finditer(answer))
        return (matches[-1][1] or "") if matches else ""
    return boxed_answer(answer)


@lru_cache
def _compiled(field: str, pattern: str | None) -> Pattern:
    if pattern is None or pattern == "boxed":
        return pattern  # type: ignore[return-value]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{field}: {pattern!r} is not a regular expression ({error})") from None
    if not compiled.groups:
        raise InputError(f"{field}: {pattern!r} has no group; put the answer in parentheses, such as '#### (.*)'")
    return compiled
