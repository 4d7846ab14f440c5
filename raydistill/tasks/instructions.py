"""Open-ended instructions from a file or a hub data set, such as Dolly, Vicuna and MT-bench; graded by rules or by a reward model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from raydistill.config.checks import Check
from raydistill.errors import InputError
from raydistill.tasks.data_files import Row
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.instruction_checks import share_met
from raydistill.tasks.prompt import Prompt, Split, hashed_id
from raydistill.tasks.source import Given

if TYPE_CHECKING:
    from raydistill.config.data import Where

_CHECKS = TypeAdapter(tuple[Check, ...])
_SAID = 300
"""Characters of what is wrong with a check: it may hold all of a cell."""


class Instructions(DataTask):
    """An open-ended task over data sets.

    A prompt is the instruction, a blank line and the context, where there is one. Where the instruction is a list of turns the first
    is asked. A prompt's `answer` is its row's checks as JSON, empty without.
    """

    name = "instructions"
    graded = True
    columns = ("question", "context", "gold", "checks_column", "group")
    optional = ("context", "checks_column", "group")

    def __init__(
        self,
        data: Mapping[Split, Given | None],
        question: str = "instruction",
        context: str | None = None,
        gold: str | None = None,
        checks: Sequence[Check] = (),
        checks_column: str | None = None,
        limit: int | None = None,
        where: Where | None = None,
        group: str | None = None,
        drop_contaminated: bool = False,
    ) -> None:
        columns = {"question": question, "context": context, "gold": gold, "checks_column": checks_column, "group": group}
        super().__init__(data, columns | {"where": where}, limit, drop_contaminated)
        self._checks = tuple(checks)

    def verify(self, prompt: Prompt, completion: str) -> float:
        """Share of the checks that a completion meets. Has no time limit of its own: `Verifier` sets one."""
        return share_met((*self._checks, *_parsed(prompt.answer)), completion)

    def style(self, completion: str) -> str:
        """How the text is laid out: `list`, `paragraphs` or `line`."""
        lines = completion.strip().splitlines()
        if any(line.lstrip().startswith(("- ", "* ", "• ", "1.")) for line in lines):
            return "list"
        return "paragraphs" if len(lines) > 1 else "line"

    def _prompt(self, row: Row) -> Prompt:
        asked, context, gold = (_text(name, row) for name in ("question", "context", "gold"))
        text = f"{asked}\n\n{context}" if context else asked
        return Prompt(id=hashed_id(text), text=text, answer=self._row_checks(row), gold=gold, group=row.text_if_any("group"))

    def _row_checks(self, row: Row) -> str:
        """As JSON. Raises InputError where they are not checks, or neither the row nor the task has any."""
        if "checks_column" not in row.values:
            return ""
        where = row.place("checks_column")
        try:
            written = _written(row.values["checks_column"])
            row.require_length("checks_column", written)
            if not _parsed(written) and not self._checks:
                raise InputError(f"{where} has no checks; give some, or add task.checks for all rows")
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise InputError(f"{where}: {place}: {' '.join(first['msg'].removeprefix('Value error, ').split())[:_SAID]}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not a list of checks as JSON ({error})") from None
        return written


def _text(setting: str, row: Row) -> str:
    """A cell as a text; of a list of turns the first. Raises InputError for what is no text, and for a text that no prompt could hold."""
    value, where = row.values.get(setting), row.place(setting)
    if isinstance(value, list | tuple):
        if not value or not isinstance(value[0], str) or not value[0].strip():
            raise InputError(f"{where} has no first turn; fill it or leave the row out")
        value = value[0]
    if value is not None and not isinstance(value, str):
        raise InputError(f"{where} holds {type(value).__name__}, where a text or a list of texts is wanted")
    return row.plain(setting, value or "")


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
