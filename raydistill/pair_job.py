"""A diagnosis of one teacher and one student in one process: what a run sends to the pool of its students."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from raydistill.config.diagnose import Diagnose
from raydistill.crew import engine_spec, scorer_spec
from raydistill.diagnose.comparer import ComparerActor
from raydistill.diagnose.findings import Json
from raydistill.diagnose.hands import Ask, Texts
from raydistill.diagnosis import Diagnosis, DiagnosisFolder
from raydistill.diagnosis_plan import Pair, pair_of
from raydistill.evaluate.measure import Generate
from raydistill.files import write_whole
from raydistill.models.lineup import Role
from raydistill.progress import Console
from raydistill.reward.grader import Grader
from raydistill.scoring.score import Scorer, ScorerSpec, SequenceScore
from raydistill.students.job import student_checker
from raydistill.tasks.outcome import Checker
from raydistill.tasks.prompt import Prompt, Task


@dataclass(frozen=True)
class PairJob:
    """Diagnose a pair, and write what is found to `out`. What the two wrote is shared with other pairs of theirs."""

    out: Path
    title: str
    diagnose: Diagnose
    task: Task
    prompts: tuple[Prompt, ...]
    completions: tuple[Path, Path]
    """Where the teacher's and the student's lie, or will."""
    grader: Grader | None = None
    """Grades completions in the place of the task's verifier."""

    def run(self, threads: int = 1) -> Json:
        """What is found, as in diagnosis.json; read back where it is there already. Raises InputError or RunError."""
        if not self.out.exists():
            folder = _Folder(self.out.parent, self.diagnose.seed, self.out, self.completions)
            pair = pair_of(self.diagnose, self.task, self.prompts)
            here = _Here(self.diagnose, pair.task, self.grader, threads)
            found = Diagnosis(self.diagnose, pair, folder, Console(io.StringIO()), here).run()
            write_whole(self.out, json.dumps(found, allow_nan=False))
        return json.loads(self.out.read_text())


@dataclass(frozen=True)
class _Folder(DiagnosisFolder):
    out: Path
    paths: tuple[Path, Path]

    @property
    def seconds(self) -> Path:
        return self.root / "seconds" / self.out.name

    def completions(self, section: str) -> Path:
        own = {"teacher": self.paths[0], "student": self.paths[1]}
        return own.get(section, self.root / "completions" / f"{self.out.stem}-{section}.json")


class _Here:
    """Everything in this process, with a GPU where one is visible; for models that a student's process has room for."""

    def __init__(self, job: Diagnose, task: Task, grader: Grader | None, threads: int) -> None:
        self._job, self._task, self._grader, self._threads = job, task, grader, threads

    def checker(self) -> AbstractContextManager[Checker]:
        return student_checker(self._task, self._job.verifier, self._grader)

    @contextmanager
    def engines(self, role: Role) -> Iterator[Generate]:
        import torch

        from raydistill.rollout.transformers_engine import TransformersEngine

        @cache
        def engine() -> TransformersEngine:
            spec = engine_spec(self._job.rollout, self._job.task, self._job.dtype, role.config.model)
            return TransformersEngine(replace(spec, kind="transformers", threads=self._threads, gpu=torch.cuda.is_available()))

        yield lambda prompts, sampling: engine().generate(prompts, sampling, engine().weights_version)

    @contextmanager
    def comparer(self, pair: Pair) -> Iterator[Ask]:
        comparer = ComparerActor(*map(self._spec, (pair.teacher, pair.student)))
        yield lambda asked: [getattr(comparer, method)(*arguments) for method, arguments in asked]

    def score(self, pair: Pair, asked: Sequence[Texts]) -> list[list[SequenceScore]]:
        scorers = (Scorer(self._spec(role)) for role in (pair.teacher, pair.student))
        return [scorer.score(*one) for scorer in scorers for one in asked]

    def _spec(self, role: Role) -> ScorerSpec:
        return replace(scorer_spec(role.config, self._job.scorer, self._job.dtype), threads=self._threads)
