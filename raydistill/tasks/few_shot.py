"""Prompts with worked examples before them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from raydistill.errors import InputError
from raydistill.tasks.data_task import DataTask
from raydistill.tasks.fill import fill
from raydistill.tasks.prompt import Prompt, Split


class FewShot:
    """A task whose prompts begin with `count` examples of its training questions, a blank line between them.

    `layout` has `{question}` and `{answer}`; an example's answer is its gold completion, or its answer where the task has no gold. The
    asked question comes last, by the layout up to its answer, without white space at the end. Examples are the first training questions
    in hash order, the same for every prompt, but that a question is no example for itself; one that overlaps a measured question is none.

    Models that were only pretrained go on with examples of their own: engines end a completion before, see `config.task.next_question`.
    """

    def __init__(self, task: DataTask, count: int, layout: str) -> None:
        self._task, self._count, self._layout = task, count, layout
        self.name = task.name
        self._prompts: dict[Split, list[Prompt]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_prompts": {}}  # as DataTask

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._task.warnings

    def gold_warnings(self) -> tuple[str, ...]:
        return self._task.gold_warnings()

    def prompts(self, split: Split) -> list[Prompt]:
        """Raises InputError where there are too few training questions, or as the task does."""
        if split not in self._prompts:
            asked = self._task.prompts(split)
            pool = self._task.examples()[: self._count + 1]
            if len(pool) <= self._count:
                raise InputError(f"task.few_shot: {self._count} examples, but only {len(pool)} training questions can be ones; lower it")
            self._prompts[split] = [self._with_examples(prompt, pool) for prompt in asked]
        return list(self._prompts[split])

    def verify(self, prompt: Prompt, completion: str) -> bool | float:
        return self._task.verify(prompt, completion)

    def style(self, completion: str) -> str:
        return self._task.style(completion)

    def warm_up(self) -> None:
        self._task.warm_up()

    def _with_examples(self, prompt: Prompt, pool: list[Prompt]) -> Prompt:
        examples = [one for one in pool if one.id != prompt.id][: self._count]
        shown = [fill(self._layout, question=one.text, answer=one.gold or one.answer) for one in examples]
        asked = fill(self._layout.partition("{answer}")[0], question=prompt.text).rstrip()
        return replace(prompt, text="\n\n".join((*shown, asked)))
