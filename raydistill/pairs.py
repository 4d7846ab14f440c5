"""Which pairs of a run are diagnosed: every student beside its teacher, with the original and with the calibrated teachers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from raydistill.config.diagnose import Diagnose, DiagnoseEvaluation
from raydistill.config.run import Run
from raydistill.models.lineup import Lineup
from raydistill.pair_job import PairJob
from raydistill.report.diagnoses import BASE
from raydistill.report.facts import PairFacts
from raydistill.report.scores import Json
from raydistill.reward.grader import Grader
from raydistill.runfolder import RunFolder
from raydistill.tasks.prompt import Prompt, Task


class Pairs:
    """The pairs of a run. Those without a calibrated teacher are kept in `baselines`, and shared as all that lies there is."""

    def __init__(
        self,
        run: Run,
        lineup: Lineup,
        folder: RunFolder,
        baselines: Path,
        task: Task,
        prompts: Sequence[Prompt],
        grader: Grader | None = None,
    ) -> None:
        """`prompts` are those that everything is measured on; a diagnosis takes the first of them."""
        assert lineup.student is not None  # noqa: S101
        assert run.students is not None  # noqa: S101
        self.run, self.folder, self.baselines, self._grader = run, folder, baselines, grader
        self._task, self._prompts = task, tuple(prompts)
        self._teacher, self._student = lineup.teacher.config, lineup.student.config
        self._methods = [method.method for method in run.students.methods]

    def shared(self) -> list[list[PairJob]]:
        """The original teacher with the base student, then with its own, which find there what it wrote."""
        return [[self._original(BASE)], [self._original(method, seed) for seed in self.run.seeds for method in self._methods]]

    def own(self) -> list[list[PairJob]]:
        """Each calibrated teacher with the base student, whose completions `shared` has, then with its own."""
        seeds = self.run.seeds
        return [
            [self._calibrated(BASE, seed) for seed in seeds],
            [self._calibrated(method, seed) for seed in seeds for method in self._methods],
        ]

    def facts(self, found: Mapping[Path, Json]) -> tuple[PairFacts, ...]:
        """What the jobs gave, by file, in order."""
        seeds = self.run.seeds
        originals = {BASE: [self._original(BASE)]}
        originals |= {method: [self._original(method, seed) for seed in seeds] for method in self._methods}
        return tuple(
            PairFacts(
                student=name,
                original=tuple(found[job.out] for job in jobs),
                calibrated=tuple(found[self._calibrated(name, seed).out] for seed in seeds),
            )
            for name, jobs in originals.items()
        )

    def _original(self, student: str, seed: int | None = None) -> PairJob:
        """`seed` is that of a control."""
        name = student if seed is None else f"control-{student}-{seed}"
        folder = self.baselines / "diagnosis"
        model = self._student.model if seed is None else str(self.baselines / "students" / name)
        return self._job(folder / f"{name}.json", self._teacher.model, folder / "completions" / "teacher.json", model, name, seed)

    def _calibrated(self, student: str, seed: int) -> PairJob:
        folder, name = self.folder.root / "diagnosis", f"{student}-{seed}"
        wrote = folder / "completions" / f"teacher-{seed}.json"
        teacher = str(self.folder.seed(seed).teacher)
        if student == BASE:
            return self._job(folder / f"{name}.json", teacher, wrote, self._student.model, BASE, seed)
        return self._job(folder / f"{name}.json", teacher, wrote, str(self.folder.student(name)), name, seed)

    def _job(self, out: Path, teacher: str, teacher_wrote: Path, student: str, student_name: str, seed: int | None) -> PairJob:
        run, diagnosis = self.run, self.run.diagnosis
        assert diagnosis is not None  # noqa: S101
        folder = self.baselines / "diagnosis" if student_name == BASE else out.parent
        prompts = min(diagnosis.prompts, len(self._prompts))
        evaluation = DiagnoseEvaluation(
            split=run.evaluation.split, prompts=prompts, teacher_samples=diagnosis.samples, student_samples=diagnosis.samples
        )
        config = Diagnose(
            name=out.stem,
            seed=run.seeds[0] if seed is None else seed,
            task=run.task,
            verifier=run.verifier,
            evaluation=evaluation,
            teacher=self._teacher.model_copy(update={"model": teacher}),
            student=self._student.model_copy(update={"model": student}),
            wrong_pairs=diagnosis.wrong_pairs,
            gradient_probe=None,
            max_new_tokens=run.calibration.max_new_tokens,
            dtype=run.learner.dtype,
            rollout=run.rollout,
            scorer=run.scorer,
        )
        wrote = (teacher_wrote, folder / "completions" / f"{student_name}.json")
        return PairJob(out, f"diagnosis {out.stem}", config, self._task, self._prompts[:prompts], wrote, self._grader)
