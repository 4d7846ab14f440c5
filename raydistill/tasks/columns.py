"""Columns of a data set, nested ones by a dotted path such as `question.stem`, and which rows to keep by what is in them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from raydistill.errors import InputError

if TYPE_CHECKING:
    from datasets import Features

    from raydistill.config.data import Where

Path = tuple[str, ...]
_SHOWN = 8
"""How many of a column's values an error names."""
_LONG = 60
"""Characters of each."""


def find_column(field: str, source: str, column: str, features: Features) -> Path:
    """The path of a column, by its name or by its dotted path. Raises InputError if `source` has no such column."""
    if column in features:
        return (column,)
    names = dict(_names(features))
    path = tuple(column.split("."))
    if column in names or any(names.get(".".join(path[:depth])) for depth in range(1, len(path))):
        return path
    close = difflib.get_close_matches(column, names, n=1, cutoff=0.5)
    guess = f"; did you mean {close[0]!r}?" if close else ""
    raise InputError(f"{field}: {source} has no column {column!r}{guess} (its columns: {', '.join(names) or 'none'})")


def value_at(row: Any, path: Path) -> Any:
    """What is at a path of a row; None where there is nothing. Of a list, what is at the rest of the path in each element."""
    if not path:
        return row
    if isinstance(row, list):
        return [value_at(one, path) for one in row]
    return value_at(row.get(path[0]), path[1:]) if isinstance(row, Mapping) else None


class RowFilter:
    """Keeps rows that have a wanted value in each of some columns, or, where a column holds a list, among its elements.

    Values are compared as text, so that `level: 4` finds both 4 and "4". `wanted` maps columns to a value or a list of values.
    """

    def __init__(self, field: str, source: str, wanted: Where, features: Features) -> None:
        self._field, self._source = field, source
        self._wanted = {column: {str(one) for one in (value if isinstance(value, list) else [value])} for column, value in wanted.items()}
        self._paths = {column: find_column(f"{field}.{column}", source, column, features) for column in wanted}
        self._refused: dict[str, dict[str, None]] = {column: {} for column in wanted}
        """Values for which rows were refused, in order; of each row, the first."""

    def keeps(self, row: Mapping[str, Any]) -> bool:
        for column, path in self._paths.items():
            value = value_at(row, path)
            found = {str(one) for one in (value if isinstance(value, list) else [value])}
            if not found & self._wanted[column]:
                self._refused[column] |= dict.fromkeys(sorted(found))
                return False
        return True

    def refuse(self) -> InputError:
        """The error for a source of which no row was kept: names the last column that let none through, and what it has."""
        column = [column for column, values in self._refused.items() if values][-1]
        values = [value[:_LONG] for value in self._refused[column]]
        more = ", ..." if len(values) > _SHOWN else ""
        return InputError(
            f"{self._field}: no row of {self._source} is left; of those that reach {column!r} none has "
            f"{' or '.join(map(repr, sorted(self._wanted[column])))}, but {', '.join(map(repr, values[:_SHOWN]))}{more}"
        )


def _names(features: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, bool]]:
    """Dotted names of all columns, each with whether anything at all may lie below it, as in a JSON column of mixed types."""
    from datasets import Json

    for name, feature in features.items():
        yield prefix + name, isinstance(feature, Json)
        yield from _names(_parts(feature), f"{prefix}{name}.")


def _parts(feature: Any) -> Mapping[str, Any]:
    """The named parts of a nested column or of the elements of a list."""
    from datasets import LargeList, List

    while isinstance(feature, List | LargeList):
        feature = feature.feature
    return feature if isinstance(feature, Mapping) else {}


def is_nothing(value: Any) -> bool:
    """Whether a cell is empty: null, NaN, blank text or a list of nothing but such."""
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping):
        return all(map(is_nothing, value))
    return value is None or value != value or not str(value).strip()
