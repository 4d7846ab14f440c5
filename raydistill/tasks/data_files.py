"""Rows of a local file or of a hub data set, by `datasets`, with errors that name the file."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError, reason
from raydistill.tasks.columns import Path, RowFilter, find_column, is_nothing, value_at
from raydistill.tasks.source import Source

if TYPE_CHECKING:
    from datasets import Dataset

_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_EMPTY = "{field}: {source} is empty; it needs at least one row"
LONGEST = 2**20
"""Characters of a text in a data set: no model has the context for more."""
HUB_SPLITS = {"train": "train", "tune": "validation", "report": "test"}
"""The split of a hub data set that is read for each of ours, unless its name says otherwise."""


@dataclass(frozen=True)
class Row:
    """One row of a source: what is in the columns asked for."""

    number: int
    """In the source, from 1; rows that a filter leaves out count."""
    source: Source
    values: Mapping[str, Any]
    """As they are there: text, numbers, lists, mappings. None is empty. By setting, those apart that name no column."""

    def __str__(self) -> str:
        return f"row {self.number} of {self.source.name}"

    def place(self, setting: str) -> str:
        """Where an error about a value lies: the config field that names its column, and the row."""
        return f"{self.source.field_of(setting)}: {self}"

    def text(self, setting: str) -> str:
        """A value as text. Raises InputError for what is no text or number, and as `plain`."""
        value = self.values[setting]
        if isinstance(value, list | dict):
            kind = "list" if isinstance(value, list) else "mapping"
            raise InputError(f"{self.place(setting)} has a {kind} there, not a text or a number; name a part of it")
        return self.plain(setting, value)

    def plain(self, setting: str, value: Any) -> str:
        """A text or a number of the row, for a setting, as text. Raises InputError for bytes, and for a text that no prompt could hold."""
        if isinstance(value, bytes):
            raise InputError(f"{self.place(setting)} has bytes there, not text; save the column as text")
        text = str(value).strip()
        self.require_length(setting, text)
        return text

    def require_length(self, setting: str, text: str) -> None:
        """Raises InputError for a text that no prompt could hold."""
        if len(text) > LONGEST:
            raise InputError(f"{self.place(setting)} has a text of {len(text):,} characters, more than {LONGEST:,}; leave it out")

    def text_if_any(self, setting: str) -> str:
        """A value as text, or "" where the setting names no column, or its cell is empty."""
        return "" if is_nothing(self.values.get(setting)) else self.text(setting)


def read_rows(source: Source, columns: Collection[str], optional: Collection[str] = ()) -> list[Row]:
    """The rows of `source`, each with the columns asked for, in order.

    The source is a file (.jsonl, .json, .csv, .parquet) or a hub data set as `owner/name[:config[:split]]`. `columns` are those of its
    settings that name a column, or a dotted path within nested ones (see `columns`), or nothing. Its setting `where` keeps the rows that
    have these values in these columns. Raises InputError for a source that is missing, broken or empty, a missing column, no row that
    `where` keeps, or a kept row with nothing in one of the columns, those in `optional` apart.
    """
    field, name = source.field, source.name
    dataset = _load(field, name, source.split)
    named = {setting: column for setting in columns if (column := source.settings.get(setting)) is not None}
    paths = {setting: find_column(source.field_of(setting), name, column, dataset.features) for setting, column in named.items()}
    if not len(dataset):
        raise InputError(_EMPTY.format(field=field, source=name))
    kept = RowFilter(source.field_of("where"), name, source.settings.get("where") or {}, dataset.features)
    number, rows = 0, []
    try:
        for number, row in enumerate(dataset, start=1):
            if kept.keeps(row):
                rows.append(_row(number, source, row, paths, optional))
    except UnicodeDecodeError as error:  # the readers of JSON and Parquet take any bytes
        broken = _broken_at(pathlib.Path(name).expanduser(), error, number + 1)
        raise InputError(f"{field}: {name} cannot be read: {broken}") from None
    if not rows:
        raise kept.refuse()
    return rows


def _row(number: int, source: Source, cells: Mapping[str, Any], paths: Mapping[str, Path], optional: Collection[str]) -> Row:
    row = Row(number, source, {setting: value_at(cells, path) for setting, path in paths.items()})
    for setting, value in row.values.items():
        if is_nothing(value) and setting not in optional:
            column = ".".join(paths[setting])
            raise InputError(f"{row.place(setting)} has nothing in column {column!r}; fill it or leave the row out")
    return row


def _load(field: str, source: str, split: str) -> Dataset:
    suffix = pathlib.Path(source).suffix.lower()
    if suffix in _BUILDERS:
        return _load_file(field, source, _BUILDERS[suffix])
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not pathlib.Path(source).exists():
        return _load_hub(field, source, split)
    raise InputError(
        f"{field}: {source} is neither a .jsonl, .json, .csv or .parquet file nor a hub data set such as openai/gsm8k:main:train"
    )


def _load_file(field: str, source: str, builder: str) -> Dataset:
    from datasets import disable_progress_bars, load_dataset
    from datasets.utils.logging import CRITICAL, set_verbosity

    disable_progress_bars()
    set_verbosity(CRITICAL)  # it logs what it also raises
    path = pathlib.Path(source).expanduser()
    if not path.is_file():
        raise InputError(f"{field}: no file {source}; give the path of an existing .jsonl, .json, .csv or .parquet file")
    if not path.stat().st_size:
        raise InputError(_EMPTY.format(field=field, source=source))
    try:
        return load_dataset(builder, data_files=str(path), split="train")
    except Exception as error:  # `datasets` lets errors of pyarrow, pandas, fsspec and its own through
        if "corresponds to no data" in str(error):
            raise InputError(_EMPTY.format(field=field, source=source)) from None
        raise InputError(f"{field}: {source} cannot be read as {builder.upper()}: {_broken_at(path, error)}") from error


def _broken_at(path: pathlib.Path, error: Exception, row: int | None = None) -> str:
    """Where a file breaks; `row` is known where there are no lines. They are looked up: the libraries' messages count from some block."""
    text_file = path.is_file() and path.suffix.lower() != ".parquet"
    for number, line in enumerate(path.read_bytes().split(b"\n") if text_file else (), start=1):
        try:
            text = line.decode()
            if path.suffix.lower() == ".jsonl":
                json.loads(text.strip() or "{}")
        except UnicodeDecodeError as broken:
            return f"line {number} {_not_utf8(broken)}"
        except (ValueError, RecursionError) as broken:
            return f"line {number}: {broken}"
    return f"row {row} {_not_utf8(error)}" if row and isinstance(error, UnicodeDecodeError) else reason(error.__cause__ or error)


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"is not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}); save the file as UTF-8"


def _load_hub(field: str, source: str, split: str) -> Dataset:
    from datasets import load_dataset

    name, *rest = source.split(":", 2)  # a split may be a part of one, such as train[:100]
    config = rest[0] if rest else None
    part = rest[1] if len(rest) > 1 else HUB_SPLITS[split]
    try:
        return load_dataset(name, config or None, split=part)
    except Exception as error:  # no network, no such data set, no such config or split: each a class of its own, in several libraries
        raise InputError(
            f"{field}: no local file, and the hub data set {name} (config {config}, split {part}) cannot be loaded: {reason(error)}"
        ) from error
