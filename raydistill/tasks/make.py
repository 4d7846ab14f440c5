"""From a task's config to the task."""

from __future__ import annotations

from raydistill.config.task import ArithmeticTask, TaskConfig
from raydistill.tasks.arithmetic import Arithmetic
from raydistill.tasks.maths import Maths
from raydistill.tasks.prompt import Task


def make_task(config: TaskConfig) -> Task:
    """The task that `config` describes. Raises InputError where its data cannot be used."""
    if isinstance(config, ArithmeticTask):
        return Arithmetic(config.corrections)
    return Maths(
        data={"train": config.data.train, "tune": config.data.tune, "report": config.data.report},
        question=config.question,
        answer=config.answer,
        gold=config.gold,
        answer_pattern=config.answer_pattern,
        limit=config.limit,
    )
