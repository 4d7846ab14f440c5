"""The cheap looks at a trial's students by which a sweep's scheduler tells whether the trial goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from raydistill.calibrate import prompts_of_step
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.students import SeqKD
from raydistill.config.sweep import ASHA, Looking
from raydistill.crew import Crew
from raydistill.errors import RunError
from raydistill.files import write_whole
from raydistill.redistil import seqkd_job
from raydistill.students.pool import run_jobs
from raydistill.teachers import fresh_traces


class Looks:
    """The looks at one trial, of its first seed. What was seen is kept in the trial's folder and not looked at again."""

    def __init__(self, scheduler: ASHA, run: Run, student: ModelConfig, folder: Path) -> None:
        """`student` is settled."""
        self._scheduler, self._run, self._student, self._work = scheduler, run, student, folder / "look"
        self._file = folder / "looks.json"
        self._seen: dict[str, float] = json.loads(self._file.read_text()) if self._file.exists() else {}

    def repeat(self) -> None:
        """Report what earlier processes saw, for a scheduler that is new."""
        for steps, score in self._seen.items():
            _report(int(steps), score)

    def after(self, seed: int, steps: int, crew: Crew) -> None:
        """Look, if it is time to, at a student of the teacher that was synced last. SystemExit where that ends the trial."""
        if seed != self._run.seeds[0] or str(steps) in self._seen or steps not in look_steps(self._scheduler, self._run.calibration.steps):
            return
        self._seen[str(steps)] = score = look(self._scheduler, self._run, self._student, crew, self._work)
        write_whole(self._file, json.dumps(self._seen))
        _report(steps, score)


def look(looking: Looking, run: Run, student: ModelConfig, crew: Crew, work: Path) -> float:
    """Score of a student, `student` before, of the teacher that was synced last. `work` is a folder for the time of it."""
    assert run.students is not None  # noqa: S101
    seed = run.seeds[0]
    method = SeqKD(method="seqkd", **looking.students.model_dump())
    traces = fresh_traces(crew, prompts_of_step(crew.task.prompts("train"), method.traces, seed, step=0), seed)
    if not traces.traces:
        raise RunError("every trace of the teacher has a special token inside: nothing is left for a student to look at")
    prompts, samples = crew.task.prompts("tune")[: looking.prompts], run.evaluation.student_samples
    shutil.rmtree(work, ignore_errors=True)  # of a process that was killed
    job = seqkd_job(run, student, method, work, seed, crew, prompts, samples, traces)
    (evaluation,) = run_jobs([job], 1, run.students.cpus, run.students.gpus)
    shutil.rmtree(work)
    return float(np.mean(evaluation.sampled_BG))


def look_steps(scheduler: ASHA, steps: int) -> list[int]:
    """After how many of the calibration's `steps` there is a look; after the last there is nothing left to stop."""
    found = [scheduler.first_look]
    while found[-1] * scheduler.factor < steps:
        found.append(found[-1] * scheduler.factor)
    return found


def _report(steps: int, score: float) -> None:
    from ray import tune

    tune.report({"steps": steps, "student": score})
