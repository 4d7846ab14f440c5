"""Nested columns, the filter of rows, and rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from raydistill.config.data import Where
from raydistill.errors import InputError
from raydistill.tasks import data_files
from raydistill.tasks.data_files import Row, read_rows
from raydistill.tasks.source import source_of

ROWS = [
    {"question": {"stem": f"q{n}", "choices": [{"label": "A", "text": f"a{n}"}, {"label": "B", "text": f"b{n}"}]}, "key": "AB"[n % 2]}
    | {"level": f"Level {n % 3}", "grade": n, "tags": ["odd" if n % 2 else "even", "all"]}
    for n in range(6)
]


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def nested(tmp_path: Path) -> str:
    return write(tmp_path / "nested.jsonl", ROWS)


def read(source: str, where: Where | None = None, **columns: str) -> list[Row]:
    return read_rows(source_of("train", source, {"where": where, **columns}), tuple(columns))


def numbers(source: str, where: Where | None) -> list[int]:
    return [row.number for row in read(source, where, answer="key")]


def test_dotted_paths_reach_into_mappings_and_lists(nested: str) -> None:
    row = read(nested, question="question.stem", choices="question.choices.text", answer="key")[3]
    assert row.values == {"question": "q3", "choices": ["a3", "b3"], "answer": "B"}
    assert row.text("question") == "q3"
    with pytest.raises(InputError, match=r"task\.choices: row 4 of \S+ has a list there"):
        row.text("choices")


def test_a_column_whose_name_has_a_dot_is_found_by_its_name(tmp_path: Path) -> None:
    source = write(tmp_path / "dots.jsonl", [{"a.b": "whole", "a": {"b": "nested"}}])
    assert read(source, x="a.b")[0].values == {"x": "whole"}


@pytest.mark.parametrize("column", ["question.stm", "question.choices.txt", "key.stem"])
def test_a_missing_nested_column_is_named(nested: str, column: str) -> None:
    with pytest.raises(InputError, match=rf"^task\.question: \S+ has no column '{column}'.*question\.choices\.text"):
        read(nested, question=column)


@pytest.mark.parametrize(
    ("where", "kept"),
    [
        (None, [1, 2, 3, 4, 5, 6]),
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"level": "Level 1"}, [2, 5]),
        ({"level": ["Level 1", "Level 2"], "key": "A"}, [3, 5]),
        ({"grade": "4"}, [5]),
        ({"grade": [0, 5, 99]}, [1, 6]),
        ({"tags": "odd"}, [2, 4, 6]),
        ({"question.stem": "q2"}, [3]),
        ({"question.choices.text": ["b0", "a1"]}, [1, 2]),
    ],
)
def test_the_filter_keeps_rows_by_value(nested: str, where: Where | None, kept: list[int]) -> None:
    assert numbers(nested, where) == kept


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"level": "4"}, r"task\.where: no row of \S+ is left; .*'level' none has '4', but 'Level 0', 'Level 1', 'Level 2'$"),
        ({"level": "Level 1", "grade": [0, 2]}, r"task\.where: .* 'grade' none has '0' or '2', but '1', '4'$"),
        ({"levl": 4}, r"^task\.where\.levl: \S+ has no column 'levl'; did you mean 'level'\?"),
    ],
)
def test_a_filter_that_keeps_nothing_is_named(nested: str, where: Where, message: str) -> None:
    with pytest.raises(InputError, match=message):
        numbers(nested, where)


def test_a_row_that_is_left_out_may_be_empty(tmp_path: Path) -> None:
    source = write(tmp_path / "rows.jsonl", [{"key": None, "level": 1}, {"key": "x", "level": 2}])
    assert numbers(source, {"level": 2}) == [2]
    with pytest.raises(InputError, match=r"task\.answer: row 1 of \S+ has nothing in column 'key'"):
        numbers(source, None)


def test_mixed_types_are_text_where_they_can_be(tmp_path: Path) -> None:
    source = write(tmp_path / "mixed.jsonl", [{"key": 1}, {"key": "2.5"}, {"key": 3.5}, {"key": [4]}, {"key": {"value": 5}}])
    rows = read(source, answer="key")
    assert [row.text("answer") for row in rows[:3]] == ["1", "2.5", "3.5"]
    for row, kind in ((rows[3], "list"), (rows[4], "mapping")):
        with pytest.raises(InputError, match=rf"task\.answer: row {row.number} of \S+ has a {kind} there, not a text or a number"):
            row.text("answer")


def test_below_a_column_of_mixed_types_a_row_without_the_part_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "mixed.jsonl", [{"key": {"value": 5}}, {"key": "five"}])
    with pytest.raises(InputError, match=r"task\.answer: row 2 of \S+ has nothing in column 'key\.value'"):
        read(source, answer="key.value")


def texts_of_bytes(values: list[bytes]) -> pa.Array:
    """A column that calls itself text, whatever its bytes."""
    offsets = pa.array([sum(map(len, values[:end])) for end in range(len(values) + 1)], pa.int32())
    return pa.Array.from_buffers(pa.string(), len(values), [None, offsets.buffers()[1], pa.py_buffer(b"".join(values))])


@pytest.mark.parametrize("column", ["key", "unused"])
def test_broken_utf8_in_parquet_is_named(tmp_path: Path, column: str) -> None:
    """Rows are read some at a time, and a filter leaves some out."""
    columns: dict[str, Any] = {name: ["x"] * 40 for name in ("key", "unused")} | {"level": list(range(40))}
    parquet.write_table(pa.table(columns | {column: texts_of_bytes([b"x"] * 33 + [b"ab\xff"] + [b"x"] * 6)}), tmp_path / "rows.parquet")
    with pytest.raises(
        InputError, match=r"^task\.data\.train: \S+ cannot be read: row 34 is not UTF-8 \(byte 0xff at 2\); save the file as UTF-8$"
    ):
        numbers(str(tmp_path / "rows.parquet"), {"level": [3, 20, 39]})


@pytest.mark.parametrize("value", [b"q39", b"\xff"])
def test_bytes_are_no_text(tmp_path: Path, value: bytes) -> None:
    parquet.write_table(pa.table({"key": [b"x", value]}), tmp_path / "rows.parquet")
    row = read(str(tmp_path / "rows.parquet"), answer="key")[1]
    with pytest.raises(InputError, match=r"^task\.answer: row 2 of \S+ has bytes there, not text; save the column as text$"):
        row.text("answer")


def test_a_gigantic_row_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "giant.jsonl", [{"key": "x"}, {"key": "y" * 50 * 2**20}, {"key": "z"}])
    rows = read(source, answer="key")
    assert [rows[index].text("answer") for index in (0, 2)] == ["x", "z"]
    with pytest.raises(InputError, match=r"task\.answer: row 2 of \S+ has a text of 52,428,800 characters, more than 1,048,576") as caught:
        rows[1].text("answer")
    assert len(str(caught.value)) < 300
    with pytest.raises(InputError, match=r"^task\.where: no row of \S+ is left; .* none has 'w', but 'x', 'y{60}', 'z'$"):
        numbers(source, {"key": "w"})
    assert data_files.LONGEST == 2**20
