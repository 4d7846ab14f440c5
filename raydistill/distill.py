"""Distil one student: traces of the teacher, what it says of them, training, and scores of the teacher and the student before and after."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from raydistill.calibrate import prompts_of_step
from raydistill.cluster import connect
from raydistill.config.distill import SFT, Distill, SampledRKL
from raydistill.config.students import Matching
from raydistill.crew import SYNC_TOLERANCE, rollout_pool, scorer_actor, zero_fields
from raydistill.distill_plan import Models, compared_by, gold, needs_scorers, parts, require_lessons_fit, told
from raydistill.distill_report import distill_report, score_table
from raydistill.errors import RunError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.evaluate.measure import measure
from raydistill.files import write_whole
from raydistill.jobs import tracked
from raydistill.learner.batch import ZeroSpec
from raydistill.models.lineup import Role
from raydistill.plan import BYTES, check_room
from raydistill.progress import Console
from raydistill.reward.grader import start_checker
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.pool import RolloutPool
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained, resume_command
from raydistill.scoring.actor import answers
from raydistill.students.data import Reader
from raydistill.students.distil import Objective, Recipe
from raydistill.students.offline_card import read_card
from raydistill.students.train import STUDENT, TrainJob, train
from raydistill.tasks.prompt import Prompt
from raydistill.teachers import evaluation_seed
from raydistill.timing import KeptPhases
from raydistill.traces import TraceSet, sample_traces

_POLL_SECONDS = 1.0
OnStep = Callable[[int, dict[str, Any]], None]


def run_distillation(job: Distill, models: Models, out: Path, resume: bool) -> None:
    """The whole job, from its folder to its report. Raises InputError or RunError; what is done by then stays and can be resumed."""
    console, folder = Console(), RunFolder(out, job.seed)
    if not folder.is_complete(job, resume):
        for warning in models.warnings:
            console.say(f"warning: {warning}")
        connect(weights_bytes=BYTES[job.train.dtype] * models.student.facts.parameters)
        check_room(parts(job, models))
        with tracked(job, folder) as tracker, explained(folder, resume_command()):
            report = Distillation(job, models, folder, console).run(tracker.log_step)
            write_whole(folder.report, json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            tracker.log_report(report, folder.root)
    from rich.console import Console as RichConsole

    RichConsole().print(score_table(json.loads(folder.report.read_text())))
    console.say(f"{folder.root}: the student is in {folder.root / STUDENT}, its report in {folder.report}")


class Distillation:
    """One distillation. Every result lies in a file of its own, whole or absent: a second call does what is missing."""

    def __init__(self, job: Distill, models: Models, folder: RunFolder, console: Console) -> None:
        self.job, self.models, self.folder, self.console = job, models, folder, console
        self._prompts = models.task.prompts(job.evaluation.split)[: job.evaluation.prompts]
        self._train_prompts = models.task.prompts("train")
        self.phases = KeptPhases(folder.root / "seconds.json", ("total", "start", "sample", "score", "train", "evaluate"))

    def run(self, on_step: OnStep) -> dict[str, Any]:
        """Do all that is missing; the report."""
        with self.phases.kept():
            return self._run(on_step)

    def _run(self, on_step: OnStep) -> dict[str, Any]:
        with self.phases("total"), self._verifier(), self._scorers() as scorers:
            traces = self._traces()
            if not (self.folder.root / STUDENT).exists():
                self._train(traces, self._scored(traces, scorers), scorers, on_step)
            trained = self._measured("student", self._distilled(), self.models.student_reader, self.job.evaluation.student_samples)
        base = self._evaluation("base")
        assert base is not None  # noqa: S101
        rows = self.folder.seed(self.job.seed).rows()
        return distill_report(self.job, self._evaluation("teacher"), base, trained, traces, self._given(traces), rows, self.phases.seconds)

    # --- the teacher

    def _traces(self) -> TraceSet | None:
        """What the teacher's students are fed, sampled where it was not yet; the teacher is measured too. None where there are none."""
        path, job = self.folder.root / "traces.json", self.job
        teacher, reader = self.models.teacher, self.models.teacher_reader
        wanted = 0 if isinstance(job.method, SFT) or job.offline else job.method.traces
        if teacher is None or reader is None or job.offline:
            return None
        if self._evaluation("teacher") is None or (wanted and not path.exists()):
            with self._engines(teacher) as pool:
                self._measure("teacher", pool, reader, job.evaluation.teacher_samples)
                if wanted:
                    write_whole(path, self._sample(pool, reader, wanted).to_json())
        return TraceSet.read(path) if wanted else None

    def _sample(self, pool: RolloutPool, reader: Reader, count: int) -> TraceSet:
        def generate(prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Completion]]:
            return pool.generate(_asked(reader, prompts), sampling)

        prompts = prompts_of_step(self._train_prompts, count, self.job.seed, step=0)
        with self.phases("sample"), self.console.busy(f"sampling {count} traces"):
            found = sample_traces(generate, self.models.task, self._checks, prompts, self.job.max_new_tokens, self.job.seed)
        if not found.traces:
            raise RunError("every trace of the teacher has a special token inside: nothing is left to learn from")
        require_lessons_fit(self.models, found.traces)
        return found

    def _scored(self, traces: TraceSet | None, scorers: tuple[Any, ...]) -> Path | None:
        """Folder of the teacher's scored traces, where the method learns from them."""
        method = self.job.method
        if not isinstance(method, Matching) or not method.traces:
            return None
        if self.job.offline:
            return Path(self.job.offline).absolute()
        folder = self.folder.root / "scored"
        if not folder.exists():
            assert traces is not None  # noqa: S101
            with self.phases("score"), self.console.busy("scoring traces"):
                self._write_scored(folder, traces, scorers, method)
        return folder

    def _write_scored(self, folder: Path, traces: TraceSet, scorers: tuple[Any, ...], method: Matching) -> None:
        import ray

        from raydistill.students.scoring_task import write_scored

        teacher = self.models.teacher
        assert teacher is not None  # noqa: S101
        task = ray.remote(write_scored).options(num_cpus=0, name="score")
        answers([task.remote(folder, teacher, traces.traces, told(self.job, self.models), method.temperature, scorers)])

    @contextmanager
    def _scorers(self) -> Iterator[tuple[Any, ...]]:
        """Actors that hold the teacher, where there is still something to ask of it; they come up while its engines do."""
        import ray

        teacher, job = self.models.teacher, self.job
        wanted = teacher is not None and needs_scorers(job) and not (self.folder.root / STUDENT).exists()
        scorers = tuple(scorer_actor(teacher.config, job.scorer, job.train.dtype) for _ in range(job.scorers) if teacher and wanted)
        try:
            yield scorers
        finally:
            for scorer in scorers:
                ray.kill(scorer)

    # --- the student

    def _distilled(self) -> Role:
        """The student after training."""
        role = self.models.student
        return Role(role.facts, role.config.model_copy(update={"model": str(self.folder.root / STUDENT)}))

    def _train(self, traces: TraceSet | None, scored: Path | None, scorers: tuple[Any, ...], on_step: OnStep) -> None:
        """Train the student, on-policy beside engines that hold it, and measure what it was before."""
        work = self._train_job(traces, scored)
        reader, samples = self.models.student_reader, self.job.evaluation.student_samples
        if not work.prompts:
            self._measured("base", self.models.student, reader, samples)
            self._start(work, on_step)
            return
        with self._engines(self.models.student) as pool:
            self._measure("base", pool, reader, samples)
            self._start(replace(work, pool=pool, scorers=scorers), on_step)

    def _start(self, work: TrainJob, on_step: OnStep) -> None:
        config = self.job.train
        with self.phases("train"), self.console.steps("training", work.recipe.steps) as advance:

            def seen(row: dict[str, Any]) -> None:
                advance(row["step"] + 1, f"loss {row['loss']:.3f}")
                on_step(self.job.seed, row)

            with _followed(work, seen):
                train(work, config.processes, config.cpus, config.gpus, config.max_failures)

    def _train_job(self, traces: TraceSet | None, scored: Path | None) -> TrainJob:
        job, method, models, objective = self.job, self.job.method, self.models, self._objective()
        return TrainJob(
            folder=self.folder.seed(job.seed),
            spec=ZeroSpec(model=str(models.student.facts.folder), lr=method.lr, seed=job.seed, **zero_fields(job.train)),
            student=models.student.config,
            recipe=Recipe(method.steps, method.batch, method.lr, job.seed, job.train.micro_batch_tokens),
            objective=objective,
            checkpoint_every=job.train.checkpoint_every,
            by=compared_by(job, models),
            teacher=models.teacher.config if models.teacher and objective else None,
            traces=tuple(gold(job, models)) if isinstance(method, SFT) else traces.traces if traces and not objective else (),
            scored=scored,
            prompts=tuple(prompt.text for prompt in self._train_prompts) if objective and objective.on_policy else (),
            max_new_tokens=job.max_new_tokens,
            bucket_bytes=job.train.bucket_mib * 2**20,
            sync_tolerance=SYNC_TOLERANCE[job.train.dtype],
        )

    def _objective(self) -> Objective | None:
        job, method = self.job, self.job.method
        if isinstance(method, SampledRKL):
            return Objective(jsd_beta=1, on_policy=1, top_k=1)
        if not isinstance(method, Matching):
            return None
        if job.offline:
            return Objective(method.jsd_beta, method.on_policy, method.temperature)
        k = 1 if compared_by(job, self.models) == "span" else told(job, self.models)
        return Objective(method.jsd_beta, method.on_policy, method.temperature, k)

    def _given(self, traces: TraceSet | None) -> int:
        """How many traces there are to learn from."""
        if self.job.offline:
            return read_card(Path(self.job.offline)).traces
        return len(gold(self.job, self.models)) if isinstance(self.job.method, SFT) else len(traces.traces) if traces else 0

    # --- measuring

    @contextmanager
    def _engines(self, role: Role) -> Iterator[RolloutPool]:
        """Engines of a model."""
        pool = rollout_pool(self.job.rollout, self.job.task, self.job.train.dtype, role.config.model)
        try:
            with self.phases("start"), self.console.busy(f"starting engines of the {role.facts.section}"):
                pool.ready()
            yield pool
        finally:
            pool.shutdown()

    def _measured(self, name: str, role: Role, reader: Reader, samples: int) -> Evaluation:
        """Scores of a model, by engines of its own where it was not measured before."""
        if (known := self._evaluation(name)) is not None:
            return known
        with self._engines(role) as pool:
            return self._measure(name, pool, reader, samples)

    def _measure(self, name: str, pool: RolloutPool, reader: Reader, samples: int) -> Evaluation:
        """Scores of the model that the engines hold; read back where it was measured before."""
        job = self.job
        if (known := self._evaluation(name)) is not None:
            return known
        with self.phases("evaluate"), self.console.busy(f"measuring {name}"):
            found = measure(
                pool.generate,
                self.models.task,
                self._checks,
                self._prompts,
                _asked(reader, self._prompts),
                samples,
                job.max_new_tokens,
                seed=evaluation_seed(job.seed),
            )
        write_whole(self._evaluation_file(name), found.to_json())
        return found

    def _evaluation_file(self, name: str) -> Path:
        return self.folder.root / "evaluations" / f"{name}.json"

    def _evaluation(self, name: str) -> Evaluation | None:
        path = self._evaluation_file(name)
        return Evaluation.read(path) if path.exists() else None

    @contextmanager
    def _verifier(self) -> Iterator[None]:
        with start_checker(self.models.task, self.job.task, self.job.verifier) as self._checks:
            yield


@contextmanager
def _followed(work: TrainJob, seen: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Call `seen` with each line that the workers add to metrics.jsonl meanwhile: Ray Train itself tells the driver nothing."""
    over = threading.Event()

    def follow() -> None:
        last = -1
        while True:
            ends = over.wait(_POLL_SECONDS)
            text = work.folder.metrics.read_text() if work.folder.metrics.exists() else ""
            for line in text[: text.rfind("\n") + 1].splitlines():  # a line may be half written
                row = json.loads(line)
                if row["step"] > last:  # a worker that went on from a checkpoint repeats steps
                    last = row["step"]
                    seen(row)
            if ends:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _asked(reader: Reader, prompts: Sequence[Prompt]) -> list[TokenPrompt]:
    return [TokenPrompt(prompt.id, reader.prompt(prompt.text)) for prompt in prompts]
