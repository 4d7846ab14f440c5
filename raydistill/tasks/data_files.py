"""Rows of a local file or of a hub data set, by `datasets`, with errors that name the file."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError, reason
from raydistill.tasks.columns import Path, RowFilter, find_column, is_nothing, value_at

if TYPE_CHECKING:
    from datasets import Dataset

    from raydistill.config.task import Where

_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_EMPTY = "{field}: {source} is empty; it needs at least one row"
LONGEST = 2**20
"""Characters of a text in a data set: no model has the context for more."""
HUB_SPLITS = {"train": "train", "tune": "validation", "report": "test"}
"""The split of a hub data set that is read for each of ours, unless its name says otherwise."""


@dataclass(frozen=True)
class Row:
    """One row of a source: what is in the columns asked for, by the config field that names the column."""

    number: int
    """In the source, from 1; rows that a filter leaves out count."""
    source: str
    values: Mapping[str, Any]
    """As they are there: text, numbers, lists, mappings. None is empty."""

    def text(self, field: str) -> str:
        """A value as text. Raises InputError for what is no text or number, and as `plain`."""
        value = self.values[field]
        if isinstance(value, list | dict):
            kind = "list" if isinstance(value, list) else "mapping"
            raise InputError(f"{field}: row {self.number} of {self.source} has a {kind} there, not a text or a number; name a part of it")
        return self.plain(field, value)

    def plain(self, field: str, value: Any) -> str:
        """A text or a number of the row, for a field, as text. Raises InputError for bytes, and for a text that no prompt could hold."""
        if isinstance(value, bytes):
            raise InputError(f"{field}: row {self.number} of {self.source} has bytes there, not text; save the column as text")
        text = str(value).strip()
        self.require_length(field, text)
        return text

    def require_length(self, field: str, text: str) -> None:
        """Raises InputError for a text that no prompt could hold."""
        if len(text) > LONGEST:
            raise InputError(
                f"{field}: row {self.number} of {self.source} has a text of {len(text):,} characters, more than {LONGEST:,}; leave it out"
            )


def read_rows(
    field: str, source: str, split: str, columns: Mapping[str, str], where: Where | None = None, optional: Collection[str] = ()
) -> list[Row]:
    """The rows of `source`, each with the columns asked for, in order.

    `source` is a file (.jsonl, .json, .csv, .parquet) or a hub data set as `owner/name[:config[:split]]`; `field` is the
    config field it comes from, and `columns` maps config fields to column names, or to dotted paths within nested columns
    (see `columns`). `where` keeps the rows that have these values in these columns. Raises InputError for a source that is
    missing, broken or empty, a missing column, no row that `where` keeps, or a kept row with nothing in one of the columns,
    those of the fields in `optional` apart.
    """
    dataset = _load(field, source, split)
    paths = {name: find_column(name, source, column, dataset.features) for name, column in columns.items()}
    if not len(dataset):
        raise InputError(_EMPTY.format(field=field, source=source))
    kept = RowFilter("task.where", source, where or {}, dataset.features)
    number, rows = 0, []
    try:
        for number, row in enumerate(dataset, start=1):
            if kept.keeps(row):
                rows.append(Row(number, source, _values(row, number, source, paths, optional)))
    except UnicodeDecodeError as error:  # the readers of JSON and Parquet take any bytes
        broken = _broken_at(pathlib.Path(source).expanduser(), error, number + 1)
        raise InputError(f"{field}: {source} cannot be read: {broken}") from None
    if not rows:
        raise kept.refuse()
    return rows


def _values(row: Mapping[str, Any], number: int, source: str, paths: Mapping[str, Path], optional: Collection[str]) -> dict[str, Any]:
    values = {field: value_at(row, path) for field, path in paths.items()}
    for field, value in values.items():
        if is_nothing(value) and field not in optional:
            column = ".".join(paths[field])
            raise InputError(f"{field}: row {number} of {source} has nothing in column {column!r}; fill it or leave the row out")
    return values


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
