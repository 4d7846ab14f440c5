"""The main job: calibrate a teacher with every seed, distil students from it and from the original, evaluate all, report."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raydistill.calibrate import calibrate, prompts_of_step
from raydistill.config.models import ModelConfig
from raydistill.config.run import Run
from raydistill.config.students import Matching, MethodConfig, SeqKD, StudentsConfig
from raydistill.config.task import next_question
from raydistill.crew import Crew
from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.no_signal import no_signal
from raydistill.files import whole_folder
from raydistill.models.lineup import Lineup
from raydistill.pair_job import PairJob
from raydistill.pairs import Pairs
from raydistill.progress import Console
from raydistill.redistil import Redistiller
from raydistill.report.facts import Facts, PairFacts, StudentFacts, TargetFacts, TeacherFacts
from raydistill.report.scores import Json
from raydistill.runfolder import RunFolder, SeedFolder
from raydistill.students.data import Trace
from raydistill.students.job import StudentJob
from raydistill.students.pool import run_jobs
from raydistill.students.shadow_group import NO_TRACES, OriginalTraces
from raydistill.target import Measure, outcome
from raydistill.tasks.prompt import Prompt
from raydistill.teachers import (
    PROBED_PROMPTS,
    TeacherMeasurement,
    TraceSet,
    collect_original,
    collect_traces,
    evaluation_prompts,
    measure_teacher,
)
from raydistill.timing import KeptPhases


class Experiment:
    """One run of the main job. Every result lies in a file of its own, whole or absent: a second call does what is missing.

    `baselines` is where all that does not depend on the knob lies: the original teacher's measurements and traces, base,
    control and sft_gold students. Runs that differ in nothing but the knob may share it.
    """

    def __init__(self, run: Run, lineup: Lineup, crew: Crew, folder: RunFolder, baselines: Path, console: Console) -> None:
        self.run, self.crew, self.folder, self.baselines, self.console = run, crew, folder, baselines, console
        self.lineup = lineup
        self._for_shadows: dict[int, OriginalTraces] = {}
        self._for_target: dict[int, Measure] = {}
        self.phases = KeptPhases(folder.root / "seconds.json", ("total", "calibrate", "distil", "evaluate"))

    def measure(self, on_step: Callable[[int, dict[str, Any]], None]) -> Facts:
        """Do all that is missing; everything that was measured. `on_step` gets (seed, metrics row) of each step."""
        with self._timed():
            original, traces = self._before()
            calibrated = [self._calibrated(seed, on_step) for seed in self.run.seeds]
            evaluations = self._students(traces, [found for _, found in calibrated])
            diagnoses = self._diagnoses()
        return self._facts(original, calibrated, evaluations, diagnoses)

    def make_baselines(self) -> None:
        """Do what does not depend on the knob, and is missing; `measure` reads it back."""
        with self._timed():
            _, traces = self._before()
            self._students(traces, None)
            if self.run.diagnosed:
                self._diagnose(self._pairs().shared())

    def calibrate_until(self, steps: int) -> None:
        """The first seed's calibration, so far or as far as its KL budget lasts, with a checkpoint at the end; after `make_baselines`."""
        seed = self.run.seeds[0]
        with self._timed():
            self._calibrate(seed, self.folder.seed(seed), lambda seed, row: None, steps)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        with self.phases.kept(), self.phases("total"):
            yield

    def _before(self) -> tuple[TeacherMeasurement, list[TraceSet]]:
        """What is needed of the original teacher, which is synced for it: its measurement, and traces for each seed's students."""
        original = self._original()
        self._for_shadows = {seed: self._shadow_traces(seed) for seed in self.run.seeds} if self.run.shadows else {}
        self._for_target = {seed: self._measure(seed) for seed in self.run.seeds} if self.run.knob.target else {}
        return original, [self._traces(seed, self.baselines / "original") for seed in self.run.seeds] if self.run.students else []

    def _original(self) -> TeacherMeasurement:
        self.crew.learner.reset()
        self.crew.sync(0)
        path = self.baselines / "original" / "measurement.json"
        known = path.exists()
        with self.phases("evaluate"), self.console.busy("measuring the original teacher"):
            found = measure_teacher(self.run, self.crew, self.run.seeds[0], path)
        if not known and (warning := no_signal("the original teacher", found.evaluation.sampled_BG, found.evaluation.verifier_failures)):
            self.console.say(f"warning: {warning}")
        return found

    def _calibrated(self, seed: int, on_step: Callable[[int, dict[str, Any]], None]) -> tuple[TeacherMeasurement, TraceSet]:
        """One calibrated teacher: its measurement and its traces."""
        folder = self.folder.seed(seed)
        measured = folder.root / "measurement.json"
        if not (measured.exists() and _trace_file(folder.root, seed).exists()):
            self._calibrate(seed, folder, on_step)
        with self.phases("evaluate"), self.console.busy(f"measuring the calibrated teacher, seed {seed}"):
            measurement = measure_teacher(self.run, self.crew, seed, measured)
        return measurement, self._traces(seed, folder.root)

    def _calibrate(self, seed: int, folder: SeedFolder, on_step: Callable[[int, dict[str, Any]], None], until: int | None = None) -> None:
        steps = until or self.run.calibration.steps
        with self.phases("calibrate"), self.console.steps(f"calibrating, seed {seed}", steps) as advance:

            def step_done(row: dict[str, Any]) -> None:
                on_step(seed, row)
                advance(row["step"] + 1, f"right {row['task_reward'] or 0:.3f}  KL {row['kl_anchor']:.3f}{_measured(row)}")

            original, measure = self._for_shadows.get(seed, NO_TRACES), self._for_target.get(seed)
            calibrate(self.run, seed, self.crew, folder, step_done, original, measure, until)
        if self.run.knob.target:
            self._say_how_far(seed, outcome(self.run, self.run.knob.target, folder.rows()))

    def _shadow_traces(self, seed: int) -> OriginalTraces:
        """What a seed's shadow students need of the original teacher, whose weights were synced last."""
        assert self.run.shadows is not None  # noqa: S101
        with self.phases("calibrate"), self.console.busy(f"sampling for the shadows' twins, seed {seed}"):
            return collect_original(self.crew, self.run.shadows, seed, self.baselines / "original" / f"shadows-{seed}.json")

    def _measure(self, seed: int) -> Measure:
        """What a seed's closed loop measures by; its twins are students of the original teacher, whose weights were synced last."""
        target, students, student = self.run.knob.target, self.run.students, self.lineup.student
        assert target is not None  # noqa: S101
        assert students is not None  # noqa: S101
        assert student is not None  # noqa: S101
        folder = self.folder.seed(seed).root
        redistiller = Redistiller(
            self.run, target, students, student.config, self.crew, seed, self.baselines / "original", folder / "redistilled"
        )
        with self.phases("calibrate"), self.console.busy(f"distilling the target's twins, seed {seed}"):
            return redistiller.prepare()

    def _say_how_far(self, seed: int, found: TargetFacts) -> None:
        told = f"seed {seed}: asked for students at {found.asked:g} of the control, measured {found.reached:.3f} after {found.steps} steps"
        self.console.say(told if found.met else f"warning: {told}, and no nearer: {found.ended}; kept that teacher")

    def _traces(self, seed: int, folder: Path) -> TraceSet:
        """Traces of the teacher whose weights were synced last."""
        with self.phases("distil"), self.console.busy("sampling traces"):
            return collect_traces(self.crew, self._trace_prompts(seed), seed, _trace_file(folder, seed))

    def _trace_prompts(self, seed: int) -> list[Prompt]:
        """As many as the students want; where they want none, enough to tell what the traces are like."""
        methods = self.run.students.methods if self.run.students else ()
        enough = min(PROBED_PROMPTS, len(evaluation_prompts(self.run, self.crew)))
        count = max((m.traces for m in methods), default=0) or enough
        return prompts_of_step(self.crew.task.prompts("train"), count, seed, step=0)

    def _students(self, original: list[TraceSet], calibrated: list[TraceSet] | None) -> dict[str, Evaluation]:
        """Distil and evaluate all students, without `calibrated` only the shared ones; evaluations by the name of the student's folder."""
        students, student = self.run.students, self.lineup.student
        if students is None or student is None:
            return {}
        makers = StudentJobs(self.run, students, student.config, self.lineup.teacher.config, self.crew, self.folder, self.baselines)
        jobs = [*makers.shared(original), *(makers.own(calibrated) if calibrated else ())]
        with self.phases("distil"), self.console.steps("distilling students", len(jobs)) as advance:
            found = run_jobs(jobs, students.parallel, students.cpus, students.gpus, progress=lambda job, evaluation: advance())
        if calibrated:
            self._link_baselines()
        return {job.out.name: evaluation for job, evaluation in zip(jobs, found, strict=True)}

    def _link_baselines(self) -> None:
        """Show shared students in the run's own folder, without a second copy on the disk."""
        for source in sorted((self.baselines / "students").iterdir()):
            target = self.folder.student(source.name)
            if not target.exists():
                with whole_folder(target) as partial:
                    shutil.copytree(source, partial, copy_function=_link, dirs_exist_ok=True)

    def _diagnoses(self) -> tuple[PairFacts, ...]:
        """Traps and symptoms with the original teacher and with the calibrated ones, if they are asked for."""
        if not self.run.diagnosed:
            return ()
        pairs = self._pairs()
        return pairs.facts(self._diagnose([*pairs.shared(), *pairs.own()]))

    def _pairs(self) -> Pairs:
        prompts = evaluation_prompts(self.run, self.crew)
        return Pairs(self.run, self.lineup, self.folder, self.baselines, self.crew.task, prompts, self.crew.grader)

    def _diagnose(self, stages: Sequence[Sequence[PairJob]]) -> dict[Path, Json]:
        """What each job gives, by its file."""
        students = self.run.students
        assert students is not None  # noqa: S101
        found: dict[Path, Json] = {}
        with self.phases("diagnose"), self.console.steps("diagnosing teachers and students", sum(map(len, stages))) as advance:
            for jobs in stages:
                results = run_jobs(jobs, students.parallel, students.cpus, students.gpus, progress=lambda job, result: advance())
                found |= {job.out: result for job, result in zip(jobs, results, strict=True)}
        return found

    def _facts(
        self,
        original: TeacherMeasurement,
        calibrated: list[tuple[TeacherMeasurement, TraceSet]],
        evaluations: dict[str, Evaluation],
        diagnoses: tuple[PairFacts, ...],
    ) -> Facts:
        teachers = [measurement for measurement, _ in calibrated]
        teacher = TeacherFacts(
            original=original.evaluation,
            calibrated=tuple(t.evaluation for t in teachers),
            kl_per_sequence=tuple(t.kl_per_sequence for t in teachers),
            original_gap=original.gap,
            calibrated_gap=tuple(t.gap for t in teachers),
            traces=tuple(traces.facts for _, traces in calibrated),
            examples=tuple((p, before, after) for (p, before), (_, after) in zip(original.examples, teachers[0].examples, strict=True)),
        )
        methods = self.run.students.methods if self.run.students else ()
        return Facts(
            run=self.run,
            teacher=teacher,
            base=evaluations.get("base"),
            sft_gold=tuple(evaluations[f"sft_gold-{seed}"] for seed in self.run.seeds if f"sft_gold-{seed}" in evaluations),
            students=tuple(
                StudentFacts(
                    method=method.method,
                    samples=method.completions,
                    steps=method.steps,
                    control=tuple(evaluations[f"control-{method.method}-{seed}"] for seed in self.run.seeds),
                    calibrated=tuple(evaluations[f"{method.method}-{seed}"] for seed in self.run.seeds),
                )
                for method in methods
            ),
            seconds=self.phases.seconds,
            target=self._target_facts(),
            diagnoses=diagnoses,
        )

    def _target_facts(self) -> tuple[TargetFacts, ...]:
        target = self.run.knob.target
        return tuple(outcome(self.run, target, self.folder.seed(seed).rows()) for seed in self.run.seeds) if target else ()


class StudentJobs:
    """The students of a run as jobs: base, sft_gold, and for each method the control and the calibrated teacher's student."""

    def __init__(
        self, run: Run, students: StudentsConfig, student: ModelConfig, teacher: ModelConfig, crew: Crew, folder: RunFolder, baselines: Path
    ) -> None:
        self.run, self.students, self.crew, self.folder, self.baselines = run, students, crew, folder, baselines
        self.student, self.teacher = student, teacher

    def shared(self, original: list[TraceSet]) -> Iterator[StudentJob]:
        """Those that do not depend on the knob, from the original teacher's traces of each seed."""
        folder = self.baselines / "students"
        yield self._job(folder / "base", self.run.seeds[0], None)
        budget = self._gold_budget()
        for seed, traces in zip(self.run.seeds, original, strict=True):
            gold = self._gold(budget.samples, seed)
            if gold:
                yield self._job(folder / f"sft_gold-{seed}", seed, budget, traces=gold)
            for method in self.students.methods:
                yield self._taught(folder / f"control-{method.method}-{seed}", seed, method, traces, self.teacher.model)

    def own(self, calibrated: list[TraceSet]) -> Iterator[StudentJob]:
        """Those of the calibrated teachers, from the traces of each seed's."""
        for seed, traces in zip(self.run.seeds, calibrated, strict=True):
            for method in self.students.methods:
                out = self.folder.student(f"{method.method}-{seed}")
                yield self._taught(out, seed, method, traces, str(self.folder.seed(seed).teacher))

    def _taught(self, out: Path, seed: int, method: MethodConfig, traces: TraceSet, teacher: str) -> StudentJob:
        data: dict[str, Any] = {"traces": traces.traces[: method.traces]}
        if isinstance(method, Matching):
            data["teacher"] = self.teacher.model_copy(update={"model": teacher})
        if isinstance(method, Matching) and method.on_policy:
            data["train_prompts"] = tuple(prompt.text for prompt in self.crew.task.prompts("train"))
        return self._job(out, seed, method, **data)

    def _gold_budget(self) -> SeqKD:
        """That of SeqKD, or else of the first method."""
        given = self.students.seqkd or self.students.methods[0]
        return SeqKD(method="seqkd", samples=given.traces or given.completions, steps=given.steps, batch=given.batch, lr=given.lr)

    def _gold(self, count: int, seed: int) -> tuple[Trace, ...]:
        prompts = prompts_of_step(self.crew.task.prompts("train"), count, seed, step=0)
        return tuple(Trace(prompt.text, prompt.gold, True) for prompt in prompts if prompt.gold)

    def _job(self, out: Path, seed: int, method: MethodConfig | None, **data: Any) -> StudentJob:
        return StudentJob(
            out=out,
            student=self.student,
            method=method,
            seed=seed,
            task=self.crew.task,
            prompts=tuple(evaluation_prompts(self.run, self.crew)),
            samples=self.run.evaluation.student_samples,
            max_new_tokens=self.run.calibration.max_new_tokens,
            ends_before=next_question(self.run.task),
            micro_batch_tokens=self.students.micro_batch_tokens,
            verifier=self.run.verifier,
            grader=self.crew.grader,
            **data,
        )


def _measured(row: dict[str, Any]) -> str:
    """What a step with a target adds to its line on the terminal."""
    if "eta" not in row:
        return ""
    return f"  eta {row['eta']:+.2f}" + (f"  ratio {row['target']['ratio']:.3f}" if row["target"] else "")


def _trace_file(folder: Path, seed: int) -> Path:
    return folder / f"traces-{seed}.json"


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
