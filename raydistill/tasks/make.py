"""From a task's config to the task."""

from __future__ import annotations

from typing import Any

from raydistill.config.task import ArithmeticTask, ChoiceTask, InstructionsTask, MathsTask, TaskConfig
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.choice import Choice
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.few_shot import FewShot
from raydistill.tasks.instructions import Instructions
from raydistill.tasks.maths import Maths
from raydistill.tasks.prompt import Task


def make_task(config: TaskConfig) -> Task:
    """The task that `config` describes. Raises InputError where its data cannot be used."""
    if isinstance(config, ArithmeticTask):
        return Arithmetic(config.corrections)
    task = _data_task(config)
    return FewShot(task, config.few_shot, config.few_shot_format) if config.few_shot else task


def _data_task(config: MathsTask | ChoiceTask | InstructionsTask) -> DataTask:
    shared: dict[str, Any] = {
        "data": config.data.model_dump(),
        **{name: getattr(config, name) for name in ("question", "gold", "where", "group", "limit", "drop_contaminated")},
    }
    if isinstance(config, InstructionsTask):
        return Instructions(**shared, context=config.context, checks=config.checks, checks_column=config.checks_column)
    if isinstance(config, ChoiceTask):
        return Choice(**shared, answer=config.answer, options=config.options, answer_is=config.answer_is, layout=config.layout)
    return Maths(**shared, answer=config.answer, answer_pattern=config.answer_pattern)


def task_warnings(task: Task) -> tuple[str, ...]:
    """What a task's data, once read, gave reason to warn of."""
    return (*task.warnings, *task.gold_warnings()) if isinstance(task, DataTask | FewShot) else ()
