"""Questions with a mathematical answer, from a file or a hub data set; answers are compared by math-verify."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any

from raydistill.errors import InputError
from raydistill.tasks.data_files import read_rows
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.prompt_sets import load_splits

_SPLIT_SALT = "raydistill-maths-1"
_MARK = "####"


class Maths:
    """A maths task over `data`: a file or hub data set (see `data_files.read_rows`) for train and, if given, tune and report.

    Splits are those of `load_splits`, by a hash of the question.
    `answer_pattern` is a regular expression whose first group is the answer within the answer column (the last match
    counts); the answer itself is read as LaTeX or a plain number. `gold` is the column with a worked completion.
    `limit` keeps that many prompts of each split, in hash order, so that a smaller limit gives a part of a larger one.

    Sources are read at the first call of `prompts`, which raises InputError for whatever is wrong with them.
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
    ) -> None:
        if not data.get("train"):
            raise InputError("task.data.train: missing; name a file or a hub data set")
        self._data = dict(data)
        self._columns = {"task.question": question, "task.answer": answer} | ({"task.gold": gold} if gold else {})
        self._answer_pattern = _compiled(answer_pattern)
        self._limit = limit
        self._splits: dict[Split, list[Prompt]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A verifier's workers check prompts that come with each sample; they have no use for the data.
        return self.__dict__ | {"_splits": None}

    def prompts(self, split: Split) -> list[Prompt]:
        if self._splits is None:
            self._splits = load_splits(self._data, self._read, _SPLIT_SALT)
        return self._splits[split][: self._limit]

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

    def _read(self, split: Split, source: str) -> Iterator[Prompt]:
        for number, row in enumerate(read_rows(f"task.data.{split}", source, split, self._columns), start=1):
            yield self._prompt(row, number, source)

    def _prompt(self, row: tuple[str, ...], number: int, source: str) -> Prompt:
        question, answer, *gold = row
        if self._answer_pattern:
            matches = list(self._answer_pattern.finditer(answer))
            answer = (matches[-1][1] or "").strip() if matches else ""
            if not answer:
                raise InputError(f"task.answer_pattern: finds no answer in row {number} of {source}: {row[1][-60:]!r}")
        return Prompt(id=hashlib.sha256(question.encode()).hexdigest()[:16], text=question, answer=answer, gold=gold[0] if gold else "")


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
