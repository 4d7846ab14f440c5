"""From a task's config to the task."""

from __future__ import annotations

from raydistill.config.task import ArithmeticTask, InstructionsTask, TaskConfig
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.instructions import Instructions
from raydistill.tasks.maths import Maths
from raydistill.tasks.prompt import Split, Task


def make_task(config: TaskConfig) -> Task:
    """The task that `config` describes. Raises InputError where its data cannot be used."""
    if isinstance(config, ArithmeticTask):
        return Arithmetic()
    data: dict[Split, str | None] = {"train": config.data.train, "tune": config.data.tune, "report": config.data.report}
    if isinstance(config, InstructionsTask):
        return Instructions(
            data=data,
            question=config.question,
            context=config.context,
            gold=config.gold,
            checks=config.checks,
            checks_column=config.checks_column,
            limit=config.limit,
            where=config.where,
        )
    return Maths(
        data=data,
        question=config.question,
        answer=config.answer,
        gold=config.gold,
        answer_pattern=config.answer_pattern,
        limit=config.limit,
        where=config.where,
    )
