"""Which prompts to work on, and how an answer is checked."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict, require_places
from raydistill.config.calibration import Dtype
from raydistill.config.checks import Check
from raydistill.config.data import SPLITS, Columns, DataFiles, OwnSource, Split


class ArithmeticTask(Strict):
    """The embedded demo task: three-term arithmetic modulo 10."""

    kind: Literal["arithmetic"] = "arithmetic"
    """Selects this task."""
    corrections: bool = False
    """Whether some traces do a step wrong first, say so and do it again: the task of the models `demo-corrections:ROLE`."""


class DataSetTask(Columns):
    """What tasks over data sets have in common."""

    data: DataFiles[Any]
    """Where the splits come from."""
    limit: PositiveInt | None = None
    """Use only this many prompts of each split."""
    few_shot: Annotated[int, Field(ge=0)] = 0
    """Training questions put before each prompt as examples, with their gold completions, or their answers where there is no gold."""
    few_shot_format: str = "Question: {question}\nAnswer: {answer}"
    """An example, of which a blank line parts the next. The asked question comes last, by the same format up to its answer. A completion
    ends where another example begins: at a blank line and what stands before `{question}`, here `Question:`."""
    drop_contaminated: bool = False
    """Leave out training questions that share 13 words in a row, or all words, with one of tune or report; otherwise they are warned of."""

    @field_validator("few_shot_format")
    @classmethod
    def _has_question_and_answer(cls, value: str) -> str:
        if not _opening(value):
            raise ValueError("must begin with a text such as `Question:`, by which an example of the model's own is told from its answer")
        return require_places(value, "question", "answer")

    def given(self, split: Split, name: str) -> tuple[str, Any]:
        """The config field, below `task`, that says what `name`, such as `group`, is in a split, and what it says."""
        split = split if getattr(self.data, split) else "train"  # it is cut from there
        source = getattr(self.data, split)
        if isinstance(source, OwnSource) and name in source.model_fields_set:
            return f"data.{split}.{name}", getattr(source, name)
        return name, getattr(self, name)


class MathsColumns(Columns):
    """Where questions with a mathematical answer are."""

    answer: str = "answer"
    """Column that holds the answer."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer within the answer column, such as `#### (.*)`, or `boxed` for what is in its last
    \\boxed, as in MATH's solutions; the whole column if missing."""


class MathsSource(OwnSource, MathsColumns):
    """A split with columns of its own."""


class MathsFiles(DataFiles[MathsSource]):
    """The splits of a maths task."""


class MathsTask(MathsColumns, DataSetTask):
    """Questions with a mathematical answer, checked by math-verify."""

    kind: Literal["maths"]
    """Selects this task."""
    data: MathsFiles
    """Where the splits come from."""


AnswerIs = Literal["label", "index", "text"]


class ChoiceColumns(Columns):
    """Where multiple-choice questions are."""

    options: str = "options"
    """Column that holds the options: a list of texts, a list of `{label, text}`, or one mapping of a list `label` and a list `text`."""
    answer: str = "answer"
    """Column that tells which option is right."""
    answer_is: AnswerIs = "label"
    """How it tells: by the option's label (a letter, where options have no labels), its place from 0, or its text."""


class ChoiceSource(OwnSource, ChoiceColumns):
    """A split with columns of its own."""


class ChoiceFiles(DataFiles[ChoiceSource]):
    """The splits of a multiple-choice task."""


class ChoiceTask(ChoiceColumns, DataSetTask):
    """Multiple-choice questions, answered by a letter."""

    kind: Literal["choice"]
    """Selects this task."""
    data: ChoiceFiles
    """Where the splits come from."""
    layout: str = "{question}\n{options}"
    """The prompt's text; `{options}` becomes lines such as `A. text`."""

    @field_validator("layout")
    @classmethod
    def _has_question_and_options(cls, value: str) -> str:
        return require_places(value, "question", "options")


class RewardConfig(Strict):
    """A reward model: a sequence classifier with one label, such as Skywork-Reward-V2, an actor of its own.

    The reward of a completion is 1 / (1 + exp(-(s - center) / scale)) of its score s, from 0 to 1.
    """

    model: Annotated[str, Field(min_length=1)]
    """Local Hugging Face folder or hub name; safetensors, and a tokenizer with a chat template."""
    center: float = 0.0
    """Score that becomes a reward of 0.5, such as the mean of the original teacher's completions."""
    scale: PositiveFloat = 1.0
    """How much higher a score becomes a reward of 0.73. With 1 and center 0 a reward is the probability of beating an answer of score 0, as
    such models are trained to say. Where nearly all rewards are 0 or 1, raise it: there is little left to tell answers apart by."""
    dtype: Dtype = "float32"
    """Type of its weights."""
    batch_tokens: PositiveInt = 16384
    """Tokens, padding included, that go through it at once."""
    cpus: NonNegativeFloat = 0.1
    """Logical CPUs that Ray reserves for it."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for it."""


class InstructionsColumns(Columns):
    """Where open-ended instructions are."""

    question: str = "instruction"
    """Column that holds the instruction; where it is a list of turns, the first is asked."""
    context: str | None = None
    """Column with a text that the instruction is about; it may be empty. It follows the instruction after a blank line."""
    checks_column: str | None = None
    """Column with more checks for each row: a list, or one written as JSON."""


class InstructionsSource(OwnSource, InstructionsColumns):
    """A split with columns of its own."""


class InstructionsFiles(DataFiles[InstructionsSource]):
    """The splits of an open-ended task."""


class InstructionsTask(InstructionsColumns, DataSetTask):
    """Open-ended instructions, answered better or worse: graded from 0 to 1 by rules or by a reward model."""

    kind: Literal["instructions"]
    """Selects this task."""
    data: InstructionsFiles
    """Where the splits come from."""
    checks: tuple[Check, ...] = ()
    """Rules that every completion is held to; its reward is the share of those it meets."""
    reward: RewardConfig | None = None
    """A reward model, in the place of rules."""

    @model_validator(mode="after")
    def _graded_in_one_way(self) -> InstructionsTask:
        for split in SPLITS:
            field, column = self.given(split, "checks_column")
            rules, place = bool(self.checks or column), "" if field == "checks_column" else f"{field}: "
            if not rules and self.reward is None:
                raise ValueError(f"{place}nothing grades a completion; give checks, checks_column or reward")
            if rules and self.reward is not None:
                raise ValueError(f"{place}reward: given beside checks; drop one of them")
        return self

    @model_validator(mode="after")
    def _has_examples_to_show(self) -> InstructionsTask:
        field, gold = self.given("train", "gold")
        if self.few_shot and not gold:
            raise ValueError(f"few_shot: shows reference responses; name task.{field}")
        if self.few_shot and self.reward:
            raise ValueError("few_shot: the reward model would read the examples as well; use checks, or drop few_shot")
        return self


TaskConfig = Annotated[ArithmeticTask | MathsTask | ChoiceTask | InstructionsTask, Field(discriminator="kind")]


def next_question(task: TaskConfig) -> str:
    """The beginning of an example of its own, with which a model may go on after few-shot prompts; empty for a task without any."""
    if isinstance(task, ArithmeticTask) or not task.few_shot:
        return ""
    return f"\n\n{_opening(task.few_shot_format)}"


def _opening(few_shot_format: str) -> str:
    return few_shot_format.partition("{question}")[0].strip()


def is_graded(task: TaskConfig) -> bool:
    """Whether a completion has a reward from 0 to 1, and is neither right nor wrong."""
    return isinstance(task, InstructionsTask)


def reward_config(task: TaskConfig) -> RewardConfig | None:
    """The reward model that grades a task's completions, if one does."""
    return task.reward if isinstance(task, InstructionsTask) else None


def score_unit(task: TaskConfig) -> str:
    """What a score counts, in figures."""
    return "mean reward" if is_graded(task) else "share right"


class VerifierConfig(Strict):
    """Worker processes that check answers; a check that takes too long or crashes is a counted outcome, never a hang."""

    workers: PositiveInt = 1
    """Processes."""
    timeout: PositiveFloat = 5.0
    """Seconds one check may take."""
    max_failures: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Largest share of a step's checks that may time out or crash before the run stops."""
