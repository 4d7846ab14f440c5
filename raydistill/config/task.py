"""Which prompts to work on, and how an answer is checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from raydistill.config.base import PositiveFloat, PositiveInt, Strict, require_places

Where = dict[str, str | int | float | bool | list[str | int | float | bool]]
"""Column -> a value or a list of values."""


class ArithmeticTask(Strict):
    """The embedded demo task: three-term arithmetic modulo 10."""

    kind: Literal["arithmetic"] = "arithmetic"
    """Selects this task."""


class DataFiles(Strict):
    """A local JSONL, JSON, CSV or Parquet file, or a data set's hub name, for each split."""

    train: str
    """Prompts for calibration and distillation. Where the next two are missing, all splits are cut from it by a hash of the question."""
    tune: str | None = None
    """Prompts for choices made along the way."""
    report: str | None = None
    """Prompts for the reported figures only."""


class DataSetTask(Strict):
    """What tasks over data sets have in common."""

    data: DataFiles
    where: Where | None = None
    """Keep only rows with these values, as in `{level: [Level 4, Level 5]}`: a column, or a dotted path, and a value or a list of them."""
    question: str = "question"
    """Column that holds the question; a dotted path such as `question.stem` leads into nested ones, here and below."""
    gold: str | None = None
    """Column that holds a worked completion, for the `sft_gold` baseline."""
    limit: PositiveInt | None = None
    """Use only this many prompts of each split."""
    few_shot: Annotated[int, Field(ge=0)] = 0
    """Training questions put before each prompt as examples, with their gold completions, or their answers where there is no gold."""
    few_shot_format: str = "Question: {question}\nAnswer: {answer}"
    """An example, of which a blank line parts the next. The asked question comes last, by the same format up to its answer."""
    drop_contaminated: bool = False
    """Leave out training questions that share 13 words in a row, or all words, with one of tune or report; otherwise they are warned of."""

    @field_validator("few_shot_format")
    @classmethod
    def _has_question_and_answer(cls, value: str) -> str:
        return require_places(value, "question", "answer")


class MathsTask(DataSetTask):
    """Questions with a mathematical answer, checked by math-verify."""

    kind: Literal["maths"]
    """Selects this task."""
    answer: str = "answer"
    """Column that holds the answer."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer within the answer column, such as `#### (.*)`; the whole column if missing."""


AnswerIs = Literal["label", "index", "text"]


class ChoiceTask(DataSetTask):
    """Multiple-choice questions, answered by a letter."""

    kind: Literal["choice"]
    """Selects this task."""
    options: str = "options"
    """Column that holds the options: a list of texts, a list of `{label, text}`, or one mapping of a list `label` and a list `text`."""
    answer: str = "answer"
    """Column that tells which option is right."""
    answer_is: AnswerIs = "label"
    """How it tells: by the option's label (a letter, where options have no labels), its place from 0, or its text."""
    layout: str = "{question}\n{options}"
    """The prompt's text; `{options}` becomes lines such as `A. text`."""

    @field_validator("layout")
    @classmethod
    def _has_question_and_options(cls, value: str) -> str:
        return require_places(value, "question", "options")


TaskConfig = Annotated[ArithmeticTask | MathsTask | ChoiceTask, Field(discriminator="kind")]


class VerifierConfig(Strict):
    """Worker processes that check answers; a check that takes too long or crashes is a counted outcome, never a hang."""

    workers: PositiveInt = 1
    """Processes."""
    timeout: PositiveFloat = 5.0
    """Seconds one check may take."""
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of a step's checks that may time out or crash before the run stops."""
