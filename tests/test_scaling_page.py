"""docs/scaling.md has what the code computes."""

from __future__ import annotations

from pathlib import Path

from raydistill.gpu_hours import assumptions
from raydistill.scaling import H100
from raydistill.scaling_page import tables

PAGE = Path("docs/scaling.md")


def test_the_page_has_the_tables_that_the_code_makes() -> None:
    page = PAGE.read_text()
    made = "\n\n".join(tables())
    assert made in page, "docs/scaling.md is out of date: put in what `python -m raydistill.scaling_page` prints"


def test_the_page_has_the_assumptions() -> None:
    page = PAGE.read_text()
    for line in assumptions(H100):
        assert f"- {line}\n" in page
