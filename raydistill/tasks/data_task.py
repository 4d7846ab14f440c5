"""What tasks over data sets share: where prompts come from, and which split each is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from raydistill.errors import InputError
from raydistill.tasks.contamination import overlaps
from raydistill.tasks.data_files import Row, read_rows
from raydistill.tasks.gold_check import gold_warnings
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.source import Given, source_of
from raydistill.tasks.splits import hash_order, split_by_hash

CUT_SHARES: dict[Split, float] = {"tune": 0.1, "report": 0.25}
"""Share of the training file's prompts that goes to a split which has no file of its own."""


class DataTask(ABC):
    """A task over `data`: a file or hub data set (see `data_files`) for train and, if given, tune and report.

    A split without a source is cut from the training data by a hash of the question. No two prompts of the task have the
    same id: repeats are dropped, and a question of report is left out of tune and train, one of tune out of train.
    Training questions that overlap one of tune or report (see `contamination`) are counted in `warnings`, or left out.
    `settings` are the config fields by which all splits are read, those apart that a split gives itself (see `source`): `where`, which
    keeps rows by the values in some of their columns, and those that name columns.
    `limit` keeps that many prompts of each split, in hash order, so that a smaller limit gives a part of a larger one.

    Sources are read at the first call of `prompts`, which raises InputError for whatever is wrong with them.
    """

    name: str
    graded = False
    """Whether completions are better or worse, not right or wrong."""
    columns: tuple[str, ...]
    """Settings that name a column, or nothing."""
    optional: tuple[str, ...] = ("group",)
    """Those whose columns may be empty."""

    def __init__(
        self,
        data: Mapping[Split, Given | None],
        settings: Mapping[str, Any],
        limit: int | None = None,
        drop_contaminated: bool = False,
    ) -> None:
        if not data.get("train"):
            raise InputError("task.data.train: missing; name a file or a hub data set")
        self._sources = {split: source_of(split, given, settings) for split, given in data.items() if given}
        self._limit = limit
        self._drop = drop_contaminated
        self.warnings: tuple[str, ...] = ()
        """What was found at the first call of `prompts`, a line each: repeats, and measured questions that training questions overlap."""
        self._overlapping: set[str] = set()
        """Ids of those training questions."""
        self._splits: dict[Split, list[Prompt]] | None = None

    @abstractmethod
    def _prompt(self, row: Row) -> Prompt:
        """The prompt of a row; its id is a hash of its question. Raises InputError for a row that cannot be used."""

    def __getstate__(self) -> dict[str, Any]:
        # A verifier's workers check prompts that come with each sample; they have no use for the data.
        return self.__dict__ | {"_splits": None}

    def prompts(self, split: Split) -> list[Prompt]:
        if self._splits is None:
            self._splits = self._load()
        return self._splits[split][: self._limit]

    def gold_warnings(self) -> tuple[str, ...]:
        """A line where gold completions count as wrong: some are checked, which takes seconds. Nothing before `prompts` was called."""
        if self.graded or self._splits is None:
            return ()
        return gold_warnings(self, [*self._splits["report"], *self._splits["tune"]])

    def examples(self) -> list[Prompt]:
        """Training prompts that may be shown with any other prompt: those that give no measured question away, in hash order."""
        return [prompt for prompt in self.prompts("train") if prompt.id not in self._overlapping]

    @abstractmethod
    def verify(self, prompt: Prompt, completion: str) -> bool | float:
        """As `Task.verify`."""

    @abstractmethod
    def style(self, completion: str) -> str:
        """As `Task.style`."""

    def warm_up(self) -> None:  # noqa: B027 - most tasks have nothing slow to import
        """What a verifier's worker does before the first check."""

    def _compared(self, prompt: Prompt) -> str:
        """What of a prompt is compared with others' to find overlaps."""
        return prompt.text

    def _wanted(self, prompt: Prompt) -> str:
        """What of a prompt is compared with a repeat's to find answers that conflict."""
        return prompt.answer

    @property
    def _salt(self) -> str:
        return f"raydistill-{self.name}-1"

    def _load(self) -> dict[Split, list[Prompt]]:
        splits: dict[Split, list[Prompt]] = {}
        seen: dict[str, Prompt] = {}
        for split in ("report", "tune", "train"):
            if source := self._sources.get(split):
                rows = read_rows(source, self.columns, self.optional)
                prompts = [self._prompt(row) for row in rows]
                splits[split] = self._fresh(prompts, seen)
                if repeats := len(rows) - len(splits[split]):
                    message = f"{repeats:,} of {len(rows):,} rows of {source.name} repeat a question of another row or split; left out"
                    self.warnings += (f"{source.field}: {message}{self._conflicts(prompts, seen)}",)
        self._cut(splits)
        self._find_overlaps(splits)
        if self._drop:
            splits["train"] = [prompt for prompt in splits["train"] if prompt.id not in self._overlapping]
        for split, prompts in splits.items():
            if not prompts:
                raise InputError(f"task.data.{split}: no prompt is left for the {split} split; give more distinct questions")
        return splits

    def _find_overlaps(self, splits: Mapping[Split, list[Prompt]]) -> None:
        train = splits["train"]
        measured: tuple[Split, ...] = ("report", "tune")
        for split in measured:
            pairs = overlaps([self._compared(prompt) for prompt in train], [self._compared(prompt) for prompt in splits[split]])
            self._overlapping |= {train[place].id for place, _ in pairs}
            if pairs:
                found, giving = (len({pair[side] for pair in pairs}) for side in (1, 0))
                done = f"{giving} were dropped" if self._drop else "task.drop_contaminated=true drops them"
                self.warnings += (
                    f"task.data: {found} of {len(splits[split])} {split} questions overlap with training questions (13 words in a row, "
                    f"or all words); {done}",
                )

    def _conflicts(self, prompts: Sequence[Prompt], kept: Mapping[str, Prompt]) -> str:
        """How many of the prompts ask for another answer than that with their id that is kept; nothing where none does."""
        others = sum(self._wanted(prompt) != self._wanted(kept[prompt.id]) for prompt in prompts)
        return f", {others:,} of them with another answer than the one that is kept" if others else ""

    def _fresh(self, prompts: list[Prompt], seen: dict[str, Prompt]) -> list[Prompt]:
        """The prompts in hash order, the first of each id, without those already `seen`, which grows; it is by id."""
        fresh = {prompt.id: prompt for prompt in reversed(prompts) if prompt.id not in seen}
        seen.update(fresh)
        return [fresh[id_] for id_ in hash_order(fresh, self._salt)]

    def _cut(self, splits: dict[Split, list[Prompt]]) -> None:
        """Give the splits that have no source their share of the training prompts, in place."""
        missing = {split: share for split, share in CUT_SHARES.items() if split not in splits}
        prompts = {prompt.id: prompt for prompt in splits["train"]}
        sizes = [int(share * len(prompts)) for share in missing.values()]
        parts = split_by_hash(list(prompts), [*sizes, len(prompts) - sum(sizes)], self._salt)
        for split, ids in zip([*missing, "train"], parts, strict=True):
            splits[split] = [prompts[id_] for id_ in ids]
