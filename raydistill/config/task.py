"""Which prompts to work on, and how an answer is checked."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict, require_places
from raydistill.config.calibration import Dtype
from raydistill.config.checks import Check

Where = dict[str, str | int | float | bool | list[str | int | float | bool]]
"""Column -> a value or a list of values."""


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


class MathsTask(DataSetTask):
    """Questions with a mathematical answer, checked by math-verify."""

    kind: Literal["maths"]
    """Selects this task."""
    answer: str = "answer"
    """Column that holds the answer."""
    answer_pattern: str | None = None
    """Regular expression whose first group is the answer within the answer column, such as `#### (.*)`, or `boxed` for what is in its last
    \\boxed, as in MATH's solutions; the whole column if missing."""


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


class InstructionsTask(DataSetTask):
    """Open-ended instructions, answered better or worse: graded from 0 to 1 by rules or by a reward model."""

    kind: Literal["instructions"]
    """Selects this task."""
    question: str = "instruction"
    """Column that holds the instruction; where it is a list of turns, the first is asked."""
    context: str | None = None
    """Column with a text that the instruction is about; it may be empty. It follows the instruction after a blank line."""
    checks: tuple[Check, ...] = ()
    """Rules that every completion is held to; its reward is the share of those it meets."""
    checks_column: str | None = None
    """Column with more of them for each row: a list, or one written as JSON."""
    reward: RewardConfig | None = None
    """A reward model, in the place of rules."""

    @model_validator(mode="after")
    def _graded_in_one_way(self) -> InstructionsTask:
        rules = bool(self.checks or self.checks_column)
        if not rules and self.reward is None:
            raise ValueError("nothing grades a completion; give checks, checks_column or reward")
        if rules and self.reward is not None:
            raise ValueError("reward: given beside checks; drop one of them")
        return self

    @model_validator(mode="after")
    def _has_examples_to_show(self) -> InstructionsTask:
        if self.few_shot and not self.gold:
            raise ValueError("few_shot: shows reference responses; name task.gold")
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
