"""What a log gets where there is no terminal."""

import io

import pytest

from raydistill import progress
from raydistill.progress import Console


def lines_of(steps: int) -> list[str]:
    file = io.StringIO()
    with Console(file).steps("calibrating", steps) as advance:
        for _ in range(steps):
            advance(note="right 1.000")
    return file.getvalue().splitlines()


def test_ten_lines_of_progress_while_it_is_quick() -> None:
    assert lines_of(40)[1:-1] == [f"calibrating: {step}/40  right 1.000" for step in range(4, 41, 4)]


def test_no_step_goes_by_in_silence_where_each_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_SILENCE_SECONDS", 0.0)
    assert lines_of(40)[1:-1] == [f"calibrating: {step}/40  right 1.000" for step in range(1, 41)]


def test_a_line_is_never_broken() -> None:
    file = io.StringIO()
    Console(file).say("/a/path" * 100)
    assert file.getvalue() == "/a/path" * 100 + "\n"
