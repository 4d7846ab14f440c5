"""Many students, or diagnoses of them, on Ray, a few at a time, each in a process of its own."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

from raydistill.cluster import placement
from raydistill.environment import process_environment
from raydistill.errors import InputError, RunError


class PoolJob(Protocol):
    """Something to be done once."""

    @property
    def out(self) -> Path:
        """Where its result lies, whole or absent."""
        ...

    @property
    def title(self) -> str:
        """Names it in messages."""
        ...

    def run(self, threads: int = 1) -> Any:
        """Do it, or read back what it gave."""
        ...


AnyPoolJob = TypeVar("AnyPoolJob", bound=PoolJob)


def run_jobs(
    jobs: Sequence[AnyPoolJob],
    parallel: int,
    num_cpus: float,
    num_gpus: float = 0.0,
    progress: Callable[[AnyPoolJob, Any], None] | None = None,
) -> list[Any]:
    """What all jobs give, in their order. `progress` is called with each as it finishes, in whatever order that is.

    Those whose result is there already are read back, here. At most `parallel` run at once, each with `num_cpus` and `num_gpus` reserved
    by Ray, which must be initialised and whose nodes must all see the jobs' folders. A job whose process dies is tried once more. Raises
    what a job raises, and RunError, naming the job, for anything else; the other jobs are then stopped, and those already finished stay.
    """
    import ray

    _require_room(num_cpus, num_gpus)
    start = _remote(num_cpus, num_gpus)
    waiting: deque[int] = deque()
    running: dict[Any, int] = {}
    results: dict[int, Any] = {}
    for index, job in enumerate(jobs):
        if not job.out.exists():
            waiting.append(index)
            continue
        with _named(job):
            results[index] = job.run()
        if progress:
            progress(job, results[index])
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                index = waiting.popleft()
                running[start(jobs[index])] = index
            (done,), _ = ray.wait(list(running), num_returns=1)
            index = running.pop(done)
            results[index] = _result(done, jobs[index])
            if progress:
                progress(jobs[index], results[index])
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
    return [results[index] for index in range(len(jobs))]


def _run(job: PoolJob, threads: int) -> Any:
    return job.run(threads)


def _remote(num_cpus: float, num_gpus: float) -> Callable[[PoolJob], Any]:
    """Starts a job as a Ray task. All have one environment, so that Ray gives the next job to a process that has its imports done."""
    import ray

    threads = max(1, math.floor(num_cpus))
    environment = process_environment(threads, num_gpus)
    task: Any = ray.remote(_run).options(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        resources=placement("student"),
        max_retries=1,
        runtime_env={"env_vars": environment},
        name="student",
    )
    return lambda job: task.remote(job, threads)


def _result(reference: Any, job: PoolJob) -> Any:
    import ray

    with _named(job):
        try:
            return ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise RunError(f"its process died twice: {str(error).strip().splitlines()[0]}") from error


@contextmanager
def _named(job: PoolJob) -> Iterator[None]:
    """Errors in it say which job they are about."""
    try:
        yield
    except (InputError, RunError) as error:
        raise type(error)(f"{job.title}: {error}") from error
    except Exception as error:
        raise RunError(f"{job.title} failed with {type(error).__name__}: {error}") from error


def _require_room(num_cpus: float, num_gpus: float) -> None:
    """Ray would wait for ever for what the cluster does not have."""
    import ray

    there = ray.cluster_resources()
    for name, wanted, field in (("CPU", num_cpus, "students.cpus"), ("GPU", num_gpus, "students.gpus")):
        if wanted > there.get(name, 0.0):
            raise InputError(f"{field}: {wanted:g} {name} wanted for a student, {there.get(name, 0.0):g} available; ask for less")
