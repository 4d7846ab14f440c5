"""Who does the work of a diagnosis: actors on Ray, or the process itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any, Protocol

from raydistill.config.diagnose import Diagnose
from raydistill.crew import scorer_actor, scorer_spec
from raydistill.diagnosis_plan import Pair
from raydistill.evaluate.measure import Generate
from raydistill.models.lineup import Role
from raydistill.reward.grader import start_checker
from raydistill.sampling import engines
from raydistill.scoring.score import SequenceScore
from raydistill.tasks.outcome import Checker
from raydistill.tasks.prompt import Task

Ask = Callable[[Sequence[tuple[str, tuple[Any, ...]]]], list[Any]]
"""What methods of a `ComparerActor` give, in order, from their names and arguments."""
Texts = tuple[Sequence[str], Sequence[str]]
"""Prompts, and completions of them."""


class Hands(Protocol):
    """Who samples, compares and scores."""

    def engines(self, role: Role) -> AbstractContextManager[Generate]:
        """Engines with a model, which start when they are first asked."""
        ...

    def checker(self) -> AbstractContextManager[Checker]:
        """What checks completions."""
        ...

    def comparer(self, pair: Pair) -> AbstractContextManager[Ask]:
        """Both models of a pair in one process."""
        ...

    def score(self, pair: Pair, asked: Sequence[Texts]) -> list[list[SequenceScore]]:
        """The teacher's scores of each of what is asked, then the student's."""
        ...


class OnRay:
    """Actors, for as long as they are needed."""

    def __init__(self, job: Diagnose, task: Task) -> None:
        self._job, self._task = job, task

    def checker(self) -> AbstractContextManager[Checker]:
        return start_checker(self._task, self._job.task, self._job.verifier)

    def engines(self, role: Role) -> AbstractContextManager[Generate]:
        return engines(self._job.rollout, self._job.task, self._job.dtype, role.config.model)

    @contextmanager
    def comparer(self, pair: Pair) -> Iterator[Ask]:
        import ray

        from raydistill.diagnose.comparer import start_comparer
        from raydistill.scoring.actor import answers

        scorer = self._job.scorer
        specs = [scorer_spec(role.config, scorer, self._job.dtype) for role in (pair.teacher, pair.student)]
        # In the place of two scorers, and by as many threads.
        teacher, student = (replace(spec, threads=sum(one.threads for one in specs)) for spec in specs)
        actor = start_comparer(teacher, student, 2 * scorer.cpus, scorer.gpus)
        try:
            yield lambda asked: answers([getattr(actor, method).remote(*arguments) for method, arguments in asked])
        finally:
            ray.kill(actor)

    def score(self, pair: Pair, asked: Sequence[Texts]) -> list[list[SequenceScore]]:
        import ray

        from raydistill.scoring.actor import answers

        actors = [scorer_actor(role.config, self._job.scorer, self._job.dtype) for role in (pair.teacher, pair.student)]
        try:
            return answers([actor.score.remote(*one) for actor in actors for one in asked])
        finally:
            for actor in actors:
                ray.kill(actor)
