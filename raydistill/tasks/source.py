"""Where a split of a task comes from, and how it is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raydistill.tasks.prompt import Split

Given = str | Mapping[str, Any]
"""A file or hub data set; or a mapping with that as `source` and the settings that are not the task's in this split."""


@dataclass(frozen=True)
class Source:
    """A file or hub data set, and the settings it is read by."""

    split: Split
    name: str
    settings: Mapping[str, Any]
    """By config field, such as {"question": "problem", "where": None}."""
    own: frozenset[str]
    """Those that the split itself gives."""

    @property
    def field(self) -> str:
        """The config field that names it."""
        return f"task.data.{self.split}"

    def field_of(self, setting: str) -> str:
        """The config field that gives a setting."""
        return f"{self.field}.{setting}" if setting in self.own else f"task.{setting}"


def source_of(split: Split, given: Given, settings: Mapping[str, Any]) -> Source:
    """`settings` are the task's, all that it has."""
    own = {"source": given} if isinstance(given, str) else dict(given)
    name = own.pop("source")
    return Source(split, name, {**settings, **own}, frozenset(own))
