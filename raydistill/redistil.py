"""What a target is measured by: students distilled anew from the teacher of the moment, each beside a twin of the original teacher."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from raydistill.calibrate import prompts_of_step
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.students import SeqKD, StudentsConfig
from raydistill.config.target import TargetConfig
from raydistill.config.task import next_question
from raydistill.crew import Crew
from raydistill.errors import RunError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.students.job import StudentJob
from raydistill.students.pool import run_jobs
from raydistill.target import GROUPS, Measure, Scores
from raydistill.tasks.prompt import Prompt
from raydistill.teachers import collect_traces, fresh_traces
from raydistill.traces import TraceSet


@dataclass(frozen=True)
class Redistiller:
    """Measures, for one seed, students of the teacher whose weights were synced last.

    Their seeds are none of the run's own students', so what those come to is a test of what was measured here. Traces are
    sampled anew and trained on by SeqKD, with the run's budget unless the target has one of its own; the tune split judges.
    """

    run: Run
    target: TargetConfig
    students: StudentsConfig
    student: ModelConfig
    """Settled."""
    crew: Crew
    seed: int
    twins: Path
    """Folder for the twins and their traces, which stay."""
    work: Path
    """Folder for the students, which do not."""

    def prepare(self) -> Measure:
        """Distil the twins from the original teacher, which must have been synced last; what measures the ratio from then on.

        Twins that are there already are read back. Raises RunError where they are never right.
        """
        twins = self._run([self._job(self.twins / f"twin-{seed}", seed, self._collected(seed)) for seed in self._seeds()])
        if not _score(twins):
            raise RunError("knob.target: the original teacher's students are never right, so there is no ratio; raise target.budget")
        return lambda group: self._measure(group, twins)

    def _measure(self, group: int, twins: Sequence[Evaluation]) -> Scores:
        shutil.rmtree(self.work, ignore_errors=True)  # of a process that was killed: its traces need not be these
        places = slice(group * self.target.students, (group + 1) * self.target.students)
        own = self._run(
            [
                self._job(self.work / f"shadow-{seed}", seed, fresh_traces(self.crew, self._prompts(seed), seed))
                for seed in self._seeds()[places]
            ]
        )
        shutil.rmtree(self.work)
        # All twins, not only those of this group: seeds leave students of one teacher apart, but not in pairs with another's.
        return Scores(_score(own), _score(twins))

    def _seeds(self) -> list[int]:
        first = 600_000_000 + 1000 * self.seed
        return list(range(first, first + GROUPS * self.target.students))

    def _method(self) -> SeqKD:
        if self.target.budget:
            return SeqKD(method="seqkd", **self.target.budget.model_dump())
        method = self.students.seqkd
        assert method is not None  # noqa: S101
        return method

    def _prompts(self, seed: int) -> list[Prompt]:
        return prompts_of_step(self.crew.task.prompts("train"), self._method().traces, seed, step=0)

    def _collected(self, seed: int) -> TraceSet:
        return collect_traces(self.crew, self._prompts(seed), seed, self.twins / f"twin-traces-{seed}.json")

    def _job(self, out: Path, seed: int, traces: TraceSet) -> StudentJob:
        if not traces.traces:
            raise RunError(
                "knob.target: every trace of the teacher has a special token inside: nothing is left for students to measure it by"
            )
        prompts = self.crew.task.prompts("tune")[: self.target.prompts]
        return seqkd_job(self.run, self.student, self._method(), out, seed, self.crew, prompts, self.target.samples, traces)

    def _run(self, jobs: Sequence[StudentJob]) -> list[Evaluation]:
        return run_jobs(jobs, self.students.parallel, self.students.cpus, self.students.gpus)


def seqkd_job(
    run: Run,
    student: ModelConfig,
    method: SeqKD,
    out: Path,
    seed: int,
    crew: Crew,
    prompts: Sequence[Prompt],
    samples: int,
    traces: TraceSet,
) -> StudentJob:
    """A student that is distilled on the way, from traces of the teacher of the moment; `student` is settled."""
    assert run.students is not None  # noqa: S101
    return StudentJob(
        out=out,
        student=student,
        method=method,
        seed=seed,
        task=crew.task,
        prompts=tuple(prompts),
        samples=samples,
        max_new_tokens=run.calibration.max_new_tokens,
        ends_before=next_question(run.task),
        micro_batch_tokens=run.students.micro_batch_tokens,
        verifier=run.verifier,
        grader=crew.grader,
        traces=traces.traces,
    )


def _score(evaluations: Sequence[Evaluation]) -> float:
    return float(np.mean([evaluation.sampled_BG for evaluation in evaluations]))
