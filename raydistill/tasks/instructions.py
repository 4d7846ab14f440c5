"""Open-ended instructions from a file or a hub data set, such as Dolly, Vicuna and MT-bench; graded by rules or by a reward model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raydistill.config.checks import Check
from raydistill.errors import InputError
from raydistill.tasks.data_files import open_source
from raydistill.tasks.instruction_checks import share_met
from raydistill.tasks.prompt import Prompt, Split
from raydistill.tasks.prompt_sets import load_splits

_SPLIT_SALT = "raydistill-instructions-1"
_CHECKS = TypeAdapter(tuple[Check, ...])


class Instructions:
    """An open-ended task over `data`: a file or hub data set (see `data_files.read_rows`) for train and, if given, tune and report.

    Splits are those of `load_splits`, by a hash of the prompt, which is the instruction, a blank line and the context, where there is
    one. Where the instruction is a list of turns the first is asked. A prompt's `answer` is its row's checks as JSON, empty without.
    `limit` keeps that many prompts of each split, in hash order, so that a smaller limit gives a part of a larger one.

    Sources are read at the first call of `prompts`, which raises InputError for whatever is wrong with them.
    """

    name = "instructions"

    def __init__(
        self,
        data: Mapping[Split, str | None],
        question: str = "instruction",
        context: str | None = None,
        gold: str | None = None,
        checks: Sequence[Check] = (),
        checks_column: str | None = None,
        limit: int | None = None,
    ) -> None:
        self._data = dict(data)
        named = {"question": question, "context": context, "gold": gold, "checks_column": checks_column}
        self._columns = {name: column for name, column in named.items() if column is not None}
        self._checks = tuple(checks)
        self._limit = limit
        self._splits: dict[Split, list[Prompt]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # A verifier's workers check prompts that come with each sample; they have no use for the data.
        return self.__dict__ | {"_splits": None}

    def prompts(self, split: Split) -> list[Prompt]:
        if self._splits is None:
            self._splits = load_splits(self._data, self._read, _SPLIT_SALT)
        return self._splits[split][: self._limit]

    def verify(self, prompt: Prompt, completion: str) -> float:
        """Share of the checks that a completion meets. Has no time limit of its own: `Verifier` sets one."""
        return share_met((*self._checks, *_parsed(prompt.answer)), completion)

    def style(self, completion: str) -> str:
        """How the text is laid out: `list`, `paragraphs` or `line`."""
        lines = completion.strip().splitlines()
        if any(line.lstrip().startswith(("- ", "* ", "• ", "1.")) for line in lines):
            return "list"
        return "paragraphs" if len(lines) > 1 else "line"

    def _read(self, split: Split, source: str) -> Iterator[Prompt]:
        columns = {f"task.{name}": column for name, column in self._columns.items()}
        for number, row in enumerate(open_source(f"task.data.{split}", source, split, columns), start=1):
            yield self._prompt(row, f"row {number} of {source}")

    def _prompt(self, row: Mapping[str, Any], where: str) -> Prompt:
        asked, context, gold = (_text(name, row[self._columns[name]], where) if name in self._columns else "" for name in _TEXTS)
        for name, text in (("question", asked), ("gold", gold)):
            if name in self._columns and not text:
                raise InputError(f"task.{name}: {where} has nothing in column {self._columns[name]!r}; fill it or leave the row out")
        text = f"{asked}\n\n{context}" if context else asked
        return Prompt(id=hashlib.sha256(text.encode()).hexdigest()[:16], text=text, answer=self._row_checks(row, where), gold=gold)

    def _row_checks(self, row: Mapping[str, Any], where: str) -> str:
        """As JSON. Raises InputError where they are not checks, or neither the row nor the task has any."""
        if "checks_column" not in self._columns:
            return ""
        try:
            written = _written(row[self._columns["checks_column"]])
            if not _parsed(written) and not self._checks:
                raise InputError(f"task.checks_column: {where} has no checks; give some, or add task.checks for all rows")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"task.checks_column: {where}: {place}: {first['msg'].removeprefix('Value error, ')}") from None
        except ValueError as error:
            raise InputError(f"task.checks_column: {where} is not a list of checks as JSON ({error})") from None
        return written


_TEXTS = ("question", "context", "gold")


def _text(name: str, value: Any, where: str) -> str:
    """A cell as a text; of a list of turns the first."""
    if isinstance(value, list | tuple):
        value = value[0] if value else None
    if value is not None and not isinstance(value, str):
        raise InputError(f"task.{name}: {where} holds {type(value).__name__}, where a text or a list of texts is wanted")
    return (value or "").strip()


def _written(cell: Any) -> str:
    """A row's checks as JSON, without the nulls by which `datasets` gives each check the fields of all others."""
    checks = json.loads(cell or "[]") if isinstance(cell, str) else cell or []
    if not isinstance(checks, list):
        raise ValueError(f"it is {type(checks).__name__}")
    kept = [{name: value for name, value in one.items() if value is not None} if isinstance(one, dict) else one for one in checks]
    return json.dumps(kept) if kept else ""


@lru_cache(maxsize=1024)
def _parsed(written: str) -> tuple[Check, ...]:
    return _CHECKS.validate_json(written) if written else ()
