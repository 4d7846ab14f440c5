"""Questions with a mathematical answer, from a file or a hub data set; answers are compared by math-verify."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from raydistill.errors import InputError
from raydistill.tasks.data_files import Row, read_rows
from raydistill.tasks.maths_answer import MARK, boxed_answer, same_answer
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.splits import hash_order, split_by_hash

if TYPE_CHECKING:
    from raydistill.config.task import Where

logger = logging.getLogger(__name__)

CUT_SHARES: dict[Split, float] = {"tune": 0.1, "report": 0.25}
"""Share of the training file's prompts that goes to a split which has no file of its own."""
_SPLIT_SALT = "raydistill-maths-1"


class Maths:
    """A maths task over `data`: a file or hub data set (see `data_files.read_rows`) for train and, if given, tune and report.

    A split without a source is cut from the training data by a hash of the question. No two prompts of the task have the
    same question: repeats are dropped, and a question of report is left out of tune and train, one of tune out of train.
    `answer_pattern` is a regular expression whose first group is the answer within the answer column (the last match
    counts), or "boxed" for what is in its last \\boxed; the answer itself is read as LaTeX or a plain number. `gold` is the
    column with a worked completion. `where` keeps rows by the values in some of their columns.
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
        where: Where | None = None,
    ) -> None:
        if not data.get("train"):
            raise InputError("task.data.train: missing; name a file or a hub data set")
        self._data = dict(data)
        self._columns = {"task.question": question, "task.answer": answer} | ({"task.gold": gold} if gold else {})
        self._answer_pattern = _compiled(answer_pattern)
        self._limit = limit
        self._where = where
        self._splits: dict[Split, list[Prompt]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A verifier's workers check prompts that come with each sample; they have no use for the data.
        return self.__dict__ | {"_splits": None}

    def prompts(self, split: Split) -> list[Prompt]:
        if self._splits is None:
            self._splits = self._load()
        return self._splits[split][: self._limit]

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

    def _load(self) -> dict[Split, list[Prompt]]:
        splits: dict[Split, list[Prompt]] = {}
        seen: set[str] = set()
        for split in ("report", "tune", "train"):
            if self._data.get(split):
                splits[split] = self._read(split, seen)
        self._cut(splits)
        for split, prompts in splits.items():
            if not prompts:
                raise InputError(f"task.data.{split}: no prompt is left for the {split} split; give more distinct questions")
        return splits

    def _read(self, split: Split, seen: set[str]) -> list[Prompt]:
        """The prompts of one source in hash order, without those already `seen`, which grows."""
        source = self._data[split] or ""
        fresh: dict[str, Prompt] = {}
        rows = read_rows(f"task.data.{split}", source, split, self._columns, self._where)
        for row in rows:
            prompt = self._prompt(row)
            if prompt.id not in seen:
                seen.add(prompt.id)
                fresh[prompt.id] = prompt
        if repeats := len(rows) - len(fresh):
            _warn_once(
                f"task.data.{split}: {repeats:,} of {len(rows):,} rows of {source} repeat a question of another row or split; left out"
            )
        return [fresh[id_] for id_ in hash_order(fresh, _SPLIT_SALT)]

    def _prompt(self, row: Row) -> Prompt:
        question, answer = row.text("task.question"), row.text("task.answer")
        found = self._answer_in(answer).strip()
        if not found:
            raise InputError(f"task.answer_pattern: finds no answer in row {row.number} of {row.source}: {answer[-60:]!r}")
        gold = row.text("task.gold") if "task.gold" in self._columns else ""
        return Prompt(id=hashlib.sha256(question.encode()).hexdigest()[:16], text=question, answer=found, gold=gold)

    def _answer_in(self, answer: str) -> str:
        """The answer within the text of the answer column, or "" where the pattern finds none."""
        if self._answer_pattern is None:
            return answer
        if isinstance(self._answer_pattern, re.Pattern):
            matches = list(self._answer_pattern.finditer(answer))
            return (matches[-1][1] or "") if matches else ""
        return boxed_answer(answer)

    def _cut(self, splits: dict[Split, list[Prompt]]) -> None:
        """Give the splits that have no source their share of the training prompts, in place."""
        missing = {split: share for split, share in CUT_SHARES.items() if split not in splits}
        prompts = {prompt.id: prompt for prompt in splits["train"]}
        sizes = [int(share * len(prompts)) for share in missing.values()]
        parts = split_by_hash(list(prompts), [*sizes, len(prompts) - sum(sizes)], _SPLIT_SALT)
        for split, ids in zip([*missing, "train"], parts, strict=True):
            splits[split] = [prompts[id_] for id_ in ids]


@cache
def _warn_once(message: str) -> None:
    """A task is made several times in a run."""
    logger.warning("%s", message)


def _compiled(pattern: str | None) -> re.Pattern[str] | Literal["boxed"] | None:
    if pattern is None or pattern == "boxed":
        return pattern  # type: ignore[return-value]
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"task.answer_pattern: {pattern!r} is not a regular expression ({error})") from None
    if not compiled.groups:
        raise InputError(f"task.answer_pattern: {pattern!r} has no group; put the answer in parentheses, such as '#### (.*)'")
    return compiled
