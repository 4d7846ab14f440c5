"""Which prompts to work on, and how an answer is checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.base import PositiveFloat, PositiveInt, Strict


class ArithmeticTask(Strict):
    """The embedded demo task: three-term arithmetic modulo 10."""

    kind: Literal["arithmetic"] = "arithmetic"
    """Selects this task."""
    corrections: bool = False
    """Whether some traces do a step wrong first, say so and do it again: the task of the models `demo-corrections:ROLE`."""


class DataFiles(Strict):
    """A local JSONL, JSON, CSV or Parquet file, or a data set's hub name, for each split."""

    train: str
    """Prompts for calibration and distillation. Where the next two are missing, all splits are cut from it by a hash of the question."""
    tune: str | None = None
    """Prompts for choices made along the way."""
    report: str | None = None
    """Prompts for the reported figures only."""


class MathsTask(Strict):
    """Questions with a mathematical answer, checked by math-verify."""

    kind: Literal["maths"]
    """Selects this task."""
    data: DataFiles
    question: str = "question"
    """Column that holds the question."""
    answer: str = "answer"
    """Column that holds the answer."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer within the answer column, such as `#### (.*)`; the whole column if missing."""
    gold: str | None = None
    """Column that holds a worked completion, for the `sft_gold` baseline."""
    limit: PositiveInt | None = None
    """Use only this many prompts of each split."""


TaskConfig = Annotated[ArithmeticTask | MathsTask, Field(discriminator="kind")]


class VerifierConfig(Strict):
    """Worker processes that check answers; a check that takes too long or crashes is a counted outcome, never a hang."""

    workers: PositiveInt = 1
    """Processes."""
    timeout: PositiveFloat = 5.0
    """Seconds one check may take."""
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of a step's checks that may time out or crash before the run stops."""
