"""Rows of a local file or of a hub data set, by `datasets`, with errors that name the file."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError, reason

if TYPE_CHECKING:
    from datasets import Dataset

_BUILDERS = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_EMPTY = "{field}: {source} is empty; it needs at least one row"
HUB_SPLITS = {"train": "train", "tune": "validation", "report": "test"}
"""The split of a hub data set that is read for each of ours, unless its name says otherwise."""


def read_rows(field: str, source: str, split: str, columns: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The rows of `source`, each as the text of the columns asked for, in order.

    `source` is a file (.jsonl, .json, .csv, .parquet) or a hub data set as `owner/name[:config[:split]]`; `field` is the
    config field it comes from, and `columns` maps config fields to column names. Raises InputError for a source that is
    missing, broken or empty, a missing column, or a row with nothing in one of the columns.
    """
    return [_texts(row, number, source, columns) for number, row in enumerate(open_source(field, source, split, columns), start=1)]


def open_source(field: str, source: str, split: str, columns: Mapping[str, str]) -> Dataset:
    """A source as `read_rows` takes it, with values as they are. Raises InputError likewise, but not for what a row holds."""
    dataset = _load(field, source, split)
    for column_field, column in columns.items():
        if column not in dataset.column_names:
            raise InputError(f"{column_field}: {source} has no column {column!r}{_nearest(column, dataset.column_names)}")
    if not len(dataset):
        raise InputError(_EMPTY.format(field=field, source=source))
    return dataset


def _texts(row: Mapping[str, Any], number: int, source: str, columns: Mapping[str, str]) -> tuple[str, ...]:
    values = {field: row[column] for field, column in columns.items()}
    texts = {field: "" if value is None else str(value).strip() for field, value in values.items()}
    for field, text in texts.items():
        if not text:
            raise InputError(f"{field}: row {number} of {source} has nothing in column {columns[field]!r}; fill it or leave the row out")
    return tuple(texts.values())


def _nearest(column: str, existing: Iterable[str]) -> str:
    names = list(existing)
    close = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    return f"{guess} (its columns: {', '.join(names) or 'none'})"


def _load(field: str, source: str, split: str) -> Dataset:
    suffix = Path(source).suffix.lower()
    if suffix in _BUILDERS:
        return _load_file(field, source, _BUILDERS[suffix])
    if source.count("/") == 1 and not source.startswith((".", "/", "~")) and not Path(source).exists():
        return _load_hub(field, source, split)
    raise InputError(
        f"{field}: {source} is neither a .jsonl, .json, .csv or .parquet file nor a hub data set such as openai/gsm8k:main:train"
    )


def _load_file(field: str, source: str, builder: str) -> Dataset:
    from datasets import disable_progress_bars, load_dataset
    from datasets.utils.logging import CRITICAL, set_verbosity

    disable_progress_bars()
    set_verbosity(CRITICAL)  # it logs what it also raises
    path = Path(source).expanduser()
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


def _broken_at(path: Path, error: Exception) -> str:
    """Where a file breaks. For JSON lines it is looked up: the libraries' own messages count from the start of some block."""
    if path.suffix.lower() == ".jsonl":
        for number, line in enumerate(path.read_bytes().splitlines(), start=1):
            try:
                json.loads(line or b"{}")
            except ValueError as broken:
                return f"line {number}: {broken}"
    return reason(error.__cause__ or error)


def _load_hub(field: str, source: str, split: str) -> Dataset:
    from datasets import load_dataset

    name, *rest = source.split(":")
    config = rest[0] if rest else None
    part = rest[1] if len(rest) > 1 else HUB_SPLITS[split]
    try:
        return load_dataset(name, config or None, split=part)
    except Exception as error:  # no network, no such data set, no such config or split: each a class of its own, in several libraries
        raise InputError(
            f"{field}: no local file, and the hub data set {name} (config {config}, split {part}) cannot be loaded: {reason(error)}"
        ) from error
