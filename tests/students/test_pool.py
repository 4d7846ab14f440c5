"""Students on Ray: order, processes used again, and what a dead one looks like."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from raydistill.config.models import ModelConfig
from raydistill.config.students import SeqKD
from raydistill.errors import InputError, RunError
from raydistill.students.data import Trace
from raydistill.students.job import StudentJob, run_job
from raydistill.students.pool import run_jobs
from raydistill.tasks.arithmetic import Arithmetic

pytestmark = pytest.mark.usefixtures("ray_cluster")


@dataclass(frozen=True)
class Watched(StudentJob):
    """A job that writes down which process finishes it, and kills the first `deaths` of them just before the end."""

    deaths: int = 0

    @property
    def diary(self) -> Path:
        return self.out.with_suffix(".diary")

    @property
    def digest(self) -> str:
        model = self.out.with_name(f"{self.out.name}.partial") / "model.safetensors"
        with self.diary.open("a") as diary:
            diary.write(f"{os.getpid()} {os.environ.get('OMP_NUM_THREADS')} {os.environ.get('CUDA_VISIBLE_DEVICES')!r} ")
            diary.write(f"{model.exists()} {self.out.exists()}\n")
        if len(self.visits) <= self.deaths:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().digest

    @property
    def visits(self) -> list[str]:
        return self.diary.read_text().splitlines()


@pytest.fixture(autouse=True)
def _watched_travels_by_value() -> None:
    """Ray's workers cannot import this file."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


@pytest.fixture
def job(untrained: Path, tmp_path: Path) -> Watched:
    task = Arithmetic()
    traces = tuple(Trace(prompt.text, prompt.gold, ended=True) for prompt in task.prompts("train")[:16])
    return Watched(
        out=tmp_path / "seqkd-0",
        student=ModelConfig(model=str(untrained / "student")),
        method=SeqKD(method="seqkd", steps=2, batch=4),
        seed=0,
        task=task,
        prompts=tuple(task.prompts("tune")[:6]),
        samples=2,
        max_new_tokens=6,
        traces=traces,
    )


def named(job: Watched, seed: int, **changes: object) -> Watched:
    return replace(job, out=job.out.with_name(f"seqkd-{seed}"), seed=seed, **changes)


def test_results_come_in_order_from_one_process_and_are_what_the_job_gives_here(job: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [named(job, seed) for seed in range(3)]
    finished: list[StudentJob] = []
    evaluations = run_jobs(jobs, parallel=1, num_cpus=0.5, progress=lambda job, evaluation: finished.append(job))
    assert finished == jobs
    visits = [visit for job in jobs for visit in job.visits]
    assert len(visits) == 3
    assert len(set(visits)) == 1, "imports are to be paid once"
    assert visits[0].split()[1:] == ["1", "''", "True", "False"]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for index, there in enumerate(jobs):
        here = replace(there, out=there.out.with_name(f"here-{index}"))
        assert run_job(here) == evaluations[index]
        assert (here.out / "model.safetensors").read_bytes() == (there.out / "model.safetensors").read_bytes()


def test_two_at_a_time_keep_their_order_and_a_second_run_reads_back(job: Watched) -> None:
    jobs = [named(job, seed, method=None if seed else job.method) for seed in range(4)]
    finished: list[StudentJob] = []
    evaluations = run_jobs(jobs, parallel=2, num_cpus=0.5, progress=lambda job, evaluation: finished.append(job))
    assert {job.seed for job in finished} == {0, 1, 2, 3}
    assert run_jobs(list(reversed(jobs)), parallel=2, num_cpus=0.5) == list(reversed(evaluations))


def test_a_process_that_dies_once_is_made_good(job: Watched) -> None:
    """It is killed when the model's files are on the disk and the folder is not finished: no student is there then."""
    doomed = named(job, 1, deaths=1)
    (evaluation,) = run_jobs([doomed], parallel=1, num_cpus=0.5)
    assert len({visit.split()[0] for visit in doomed.visits}) == 2
    assert [visit.split()[-2:] for visit in doomed.visits] == [["True", "False"]] * 2
    assert [path.name for path in doomed.out.parent.glob("*.partial")] == []
    assert evaluation == run_jobs([replace(job, seed=1)], parallel=1, num_cpus=0.5)[0]


def test_a_process_that_dies_again_is_an_error_that_names_its_student(job: Watched) -> None:
    doomed = named(job, 1, deaths=9)
    with pytest.raises(RunError, match=r"^student seqkd-1: its process died twice"):
        run_jobs([doomed], parallel=1, num_cpus=0.5)
    assert len(doomed.visits) == 2


def test_errors_of_a_student_name_it_and_keep_their_kind(job: Watched, tmp_path: Path) -> None:
    foreign = named(job, 1)
    foreign.out.mkdir()
    with pytest.raises(InputError, match=r"^student seqkd-1: .*remove it"):
        run_jobs([foreign], parallel=1, num_cpus=0.5)
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^student seqkd-2 failed with NotADirectoryError"):
        run_jobs([replace(named(job, 2), out=tmp_path / "file" / "seqkd-2", deaths=0)], parallel=1, num_cpus=0.5)


def test_more_than_the_cluster_has_is_refused_and_not_waited_for(job: Watched) -> None:
    with pytest.raises(InputError, match=r"^students\.gpus: 1 GPU wanted .* 0 available"):
        run_jobs([job], parallel=1, num_cpus=0.5, num_gpus=1)
    with pytest.raises(InputError, match=r"^students\.cpus: 1000 CPU wanted"):
        run_jobs([job], parallel=1, num_cpus=1000)
