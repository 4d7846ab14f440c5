"""Training of one student on Ray Train: every worker is a ZeRO-3 process, and goes on from the last checkpoint."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raydistill.config.models import ModelConfig
from raydistill.errors import InputError, RunError, last_line
from raydistill.learner.batch import ZeroSpec
from raydistill.runfolder import SeedFolder
from raydistill.students.data import Trace
from raydistill.timing import Phases

if TYPE_CHECKING:
    from raydistill.rollout.pool import RolloutPool
    from raydistill.students.distil import Objective, Recipe


STUDENT = "student"
"""Folder of the finished student."""
Comparing = Literal["token", "sample", "span", "uld", "gold"]
"""The distributions at each token, or the sampled tokens, of a teacher with the student's tokenizer; or, with another, spans alone or
with `uld_loss` or `gold_loss` where they start."""


@dataclass(frozen=True)
class TrainJob:
    """What a worker is sent."""

    folder: SeedFolder
    """Metrics and checkpoints lie here, and the student is written to `student/` in it. All workers must see it."""
    spec: ZeroSpec
    student: ModelConfig
    recipe: Recipe
    objective: Objective | None
    """None is cross-entropy on the traces: SFT, SeqKD."""
    checkpoint_every: int
    by: Comparing = "token"
    """What is compared where there is an objective."""
    teacher: ModelConfig | None = None
    """Where there is an objective."""
    traces: tuple[Trace, ...] = ()
    """What to learn from where there is no objective."""
    scored: Path | None = None
    """Folder of an `OfflineTeacher`, whose traces are learnt from where there is an objective."""
    prompts: tuple[str, ...] = ()
    """What the student completes, on-policy."""
    max_new_tokens: int = 0
    pool: RolloutPool | None = None
    """Engines that hold the student, on-policy."""
    scorers: tuple[Any, ...] = ()
    """Actors that hold the teacher, on-policy."""
    bucket_bytes: int = 2**28
    sync_tolerance: float = 1e-3


def train(job: TrainJob, processes: int, num_cpus: float, num_gpus: float, max_failures: int) -> None:
    """Train the student to its end and leave it in `job.folder`; workers that fail are started again, `max_failures` times.

    Ray must be initialised. Raises InputError or RunError where a worker raised it, and RunError for whatever else ended the training.
    """
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    from raydistill.cluster import placement
    from raydistill.environment import process_environment

    trainer = TorchTrainer(
        run_worker,
        train_loop_config={"job": job},
        scaling_config=ScalingConfig(
            num_workers=processes,
            use_gpu=num_gpus > 0,
            resources_per_worker={"CPU": num_cpus, **({"GPU": num_gpus} if num_gpus else {}), **placement("student")},
        ),
        torch_config=TorchConfig(backend="nccl" if num_gpus else "gloo"),
        run_config=RunConfig(  # type: ignore[call-arg]  # mypy finds the class that Ray 2.60 no longer exports
            name="train",
            storage_path=str(job.folder.root / "ray"),
            failure_config=FailureConfig(max_failures=max_failures),
            worker_runtime_env={"env_vars": process_environment(max(1, int(num_cpus)), num_gpus)},
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _explained(error) from error


def _explained(error: Exception) -> Exception:
    """What one of the workers raised, of our own errors first: others lose their connection to it."""
    lines = [last_line(failure) for failure in getattr(error, "worker_failures", {}).values()] or [last_line(error)]
    for kind in (InputError, RunError):
        start = f"{kind.__module__}.{kind.__name__}: "
        for line in lines:
            if line.startswith(start):
                return kind(line.removeprefix(start))
    return RunError(f"training of the student failed: {lines[0]}")


def run_worker(config: dict[str, Any]) -> None:
    """One worker's training, from the last checkpoint to the end."""
    import ray.train

    from raydistill.students.distil import learning_rate_factor
    from raydistill.students.lessons import Lessons
    from raydistill.students.zero_student import ZeroStudent

    job: TrainJob = config["job"]
    context = ray.train.get_context()
    rank = context.get_world_rank()
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    # Ray Train shows every worker the GPUs of all workers on its node.
    student = ZeroStudent(job.spec, rank, context.get_world_size(), address, port, context.get_local_rank())
    source = Lessons(job, student, rank)
    start = job.folder.last_checkpoint() or 0
    if start:
        student.load_checkpoint(job.folder.checkpoint(start))
    if rank == 0:
        job.folder.keep_rows(start)
    for step, turn in islice(enumerate(source.turns()), start, None):
        phases = Phases()
        with phases("sample"):
            lessons = source.take(turn, step)
        plan = student.plan(lessons)
        with phases("score"):
            said = source.said(turn, lessons, plan)
        with phases("learn"):
            lr = job.recipe.lr * learning_rate_factor(step, job.recipe.steps)
            row = student.step(lessons, plan, said, source.compare, lr)
        if rank == 0:
            job.folder.append_row({"step": step, "fresh": turn.fresh, "lr": lr, **row, "seconds": phases.seconds})
        if (step + 1) % job.checkpoint_every == 0 and step + 1 < job.recipe.steps:
            student.save_checkpoint(job.folder.checkpoint(step + 1))
            if rank == 0:
                job.folder.drop_checkpoints_before(step + 1)
    student.save(job.folder.root / STUDENT)
