"""What tasks over data sets share: where prompts come from, and which split each is in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError
from raydistill.tasks.data_files import Row, read_rows
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.splits import hash_order, split_by_hash

if TYPE_CHECKING:
    from raydistill.config.task import Where

CUT_SHARES: dict[Split, float] = {"tune": 0.1, "report": 0.25}
"""Share of the training file's prompts that goes to a split which has no file of its own."""


class DataTask(ABC):
    """A task over `data`: a file or hub data set (see `data_files`) for train and, if given, tune and report.

    A split without a source is cut from the training data by a hash of the question. No two prompts of the task have the
    same id: repeats are dropped, and a question of report is left out of tune and train, one of tune out of train.
    `columns` maps config fields to column names, and `where` keeps rows by the values in some of their columns.
    `limit` keeps that many prompts of each split, in hash order, so that a smaller limit gives a part of a larger one.

    Sources are read at the first call of `prompts`, which raises InputError for whatever is wrong with them.
    """

    name: str
    optional: tuple[str, ...] = ()
    """Config fields whose columns may be empty."""

    def __init__(
        self, data: Mapping[Split, str | None], columns: Mapping[str, str], limit: int | None = None, where: Where | None = None
    ) -> None:
        if not data.get("train"):
            raise InputError("task.data.train: missing; name a file or a hub data set")
        self._data = dict(data)
        self._columns = dict(columns)
        self._where = where
        self._limit = limit
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

    @property
    def _salt(self) -> str:
        return f"raydistill-{self.name}-1"

    def _load(self) -> dict[Split, list[Prompt]]:
        splits: dict[Split, list[Prompt]] = {}
        seen: set[str] = set()
        for split in ("report", "tune", "train"):
            if source := self._data.get(split):
                rows = read_rows(f"task.data.{split}", source, split, self._columns, self._where, self.optional)
                splits[split] = self._fresh([self._prompt(row) for row in rows], seen)
        self._cut(splits)
        for split, prompts in splits.items():
            if not prompts:
                raise InputError(f"task.data.{split}: no prompt is left for the {split} split; give more distinct questions")
        return splits

    def _fresh(self, prompts: list[Prompt], seen: set[str]) -> list[Prompt]:
        """The prompts in hash order, the first of each id, without those already `seen`, which grows."""
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
