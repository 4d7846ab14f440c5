"""Where a task's prompts come from: the source of each split, and its columns."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Generic, Literal, TypeVar, get_args

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer

from raydistill.config.base import Strict

Split = Literal["train", "tune", "report"]
SPLITS: tuple[Split, ...] = get_args(Split)
Where = dict[str, str | int | float | bool | list[str | int | float | bool]]
"""Column -> a value or a list of values."""


class Columns(Strict):
    """Where in a data set a task finds what it needs."""

    where: Where | None = None
    """Keep only rows with these values, as in `{level: [Level 4, Level 5]}`: a column, or a dotted path, and a value or a list of them."""
    question: str = "question"
    """Column that holds the question; a dotted path such as `question.stem` leads into nested ones, here and below."""
    gold: str | None = None
    """Column that holds a worked completion, for the `sft_gold` baseline."""
    group: str | None = None
    """Column with a level or a category of each question, which may be empty: `raydistill evaluate` gives scores by it."""


class OwnSource(Strict):
    """A split that is read in a way of its own: fields that it gives stand before the task's. Null takes a column away."""

    listed: ClassVar[bool] = False
    source: Annotated[str, Field(min_length=1)]
    """A file or a hub data set."""

    @model_serializer(mode="wrap")
    def _only_what_was_given(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # What was left out is the task's, whatever this class has for a default.
        return {name: value for name, value in serialize(self).items() if name in self.model_fields_set}


Own = TypeVar("Own", bound=OwnSource)
_Source = Annotated[
    Annotated[str, Tag("source")] | Annotated[Own, Tag("columns")],
    Discriminator(lambda value: "columns" if isinstance(value, dict | OwnSource) else "source"),
]


class DataFiles(Strict, Generic[Own]):
    """For each split a local JSONL, JSON, CSV or Parquet file, or a data set's hub name."""

    train: _Source[Own]
    """Prompts for calibration and distillation. Where the next two are missing, all splits are cut from it by a hash of the question. Each
    may be a mapping instead, with what is not the task's in this split: `{source: x.jsonl, question: turns, gold: null}`."""
    tune: _Source[Own] | None = None
    """Prompts for choices made along the way."""
    report: _Source[Own] | None = None
    """Prompts for the reported figures only."""
