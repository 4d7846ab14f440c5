"""docs/scaling.md has what the code computes."""

from __future__ import annotations

from pathlib import Path

from raydistill.scaling.arithmetic import H100
from raydistill.scaling.hours import assumptions
from raydistill.scaling.memory import memory_assumptions
from raydistill.scaling.page import tables

PAGE = Path("docs/scaling.md")


def test_the_page_has_the_tables_that_the_code_makes() -> None:
    page = PAGE.read_text()
    made = "\n\n".join(tables())
    assert made in page, "docs/scaling.md is out of date: put in what `python -m raydistill.scaling.page` prints"


def test_the_page_has_the_assumptions() -> None:
    page = PAGE.read_text()
    for line in (*assumptions(H100), *memory_assumptions()):
        assert f"- {line}\n" in page
