"""Many students on Ray, a few at a time, each in a process of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from raydistill.cluster import placement
from raydistill.environment import process_environment
from raydistill.errors import InputError, RunError
from raydistill.evaluate.evaluation import Evaluation
from raydistill.students.job import StudentJob, run_job

Progress = Callable[[StudentJob, Evaluation], None]


def run_jobs(
    jobs: Sequence[StudentJob], parallel: int, num_cpus: float, num_gpus: float = 0.0, progress: Progress | None = None
) -> list[Evaluation]:
    """Evaluations of all jobs, in their order. `progress` is called with each as it finishes, in whatever order that is.

    Students that are there already are read back, here. At most `parallel` run at once, each with `num_cpus` and `num_gpus` reserved by
    Ray, which must be initialised and whose nodes must all see the jobs' folders. A student whose process dies is tried once more. Raises
    what `run_job` raises, and RunError, naming the student, for anything else; the other students are then stopped, and those already
    finished stay.
    """
    import ray

    _require_room(num_cpus, num_gpus)
    start = _remote(num_cpus, num_gpus)
    waiting: deque[int] = deque()
    running: dict[Any, int] = {}
    evaluations: dict[int, Evaluation] = {}
    for index, job in enumerate(jobs):
        if not job.out.exists():
            waiting.append(index)
            continue
        with _named(job):
            evaluations[index] = run_job(job)
        if progress:
            progress(job, evaluations[index])
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                index = waiting.popleft()
                running[start(jobs[index])] = index
            (done,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done)
            evaluations[index] = _result(done, jobs[index])
            if progress:
                progress(jobs[index], evaluations[index])
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return [evaluations[index] for index in range(len(jobs))]


def _remote(num_cpus: float, num_gpus: float) -> Callable[[StudentJob], Any]:
    """Starts a job as a Ray task. All have one environment, so that Ray gives the next job to a process that has its imports done."""
    import ray

    threads = max(1, math.floor(num_cpus))
    environment = process_environment(threads, num_gpus)
    task: Any = ray.remote(run_job).options(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=placement("student"),
        max_retries=1,
        runtime_env={"env_vars": environment},
        name="student",
    )
    return lambda job: task.remote(job, threads)


def _result(reference: Any, job: StudentJob) -> Evaluation:
    import ray

    with _named(job):
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RunError(f"its process died twice: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def _named(job: StudentJob) -> Iterator[None]:
    """Errors in it say which student they are about."""
    try:
        yield
    except (InputError, RunError) as error:
        raise type(error)(f"student {job.out.name}: {error}") from error
    except Exception as error:
        raise RunError(f"student {job.out.name} failed with {type(error).__name__}: {error}") from error


def _require_room(num_cpus: float, num_gpus: float) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    import ray

    there = ray.cluster_resources()
    for name, wanted, field in (("CPU", num_cpus, "students.cpus"), ("GPU", num_gpus, "students.gpus")):
        if wanted > there.get(name, 0.0):
            raise InputError(f"{field}: {wanted:g} {name} wanted for a student, {there.get(name, 0.0):g} available; ask for less")
