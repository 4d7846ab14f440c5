"""Jobs submitted to a cluster that asks for a token, as a person does who goes from a laptop to a cluster."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.e2e.conftest import ENVIRONMENT, TINY

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

STEPS = 40
SLOW_ENOUGH = [
    *TINY,
    "knob.eta=0",  # whose KL budget never ends the calibration
    f"calibration.steps={STEPS}",
    "students.methods=[{method: seqkd, samples: 64, steps: 6}]",
]
"""The smallest run that lasts long enough to be stopped in its middle."""
QUICK = [*TINY, "students=null", "rollout.engine=transformers"]


@dataclass(frozen=True)
class Cluster:
    """A head of its own. `environment` is that of a client that has the token."""

    url: str
    address: str
    process: psutil.Process
    environment: dict[str, str]

    def ray(self, *arguments: str, cwd: Path | None = None, **changes: str) -> subprocess.CompletedProcess[str]:
        """Ray's command line as a client calls it."""
        environment = self.environment | changes
        return subprocess.run([BIN / "ray", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)

    def get(self, path: str) -> Any:
        token = Path(self.environment["RAY_AUTH_TOKEN_PATH"]).read_text()
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def jobs(self) -> set[str]:
        return {job["submission_id"] for job in self.get("/api/jobs/") if job["submission_id"]}

    def log(self, job: str) -> str:
        """What `ray job logs` prints, without the line before it that is Ray's about itself."""
        shown = self.ray("job", "logs", job)
        assert shown.returncode == 0, shown.stderr
        return shown.stdout[shown.stdout.index("Running entrypoint") :]

    def workers(self) -> list[str]:
        """Command lines of what works for a job: actors, tasks, drivers, verifiers. Ray's own processes, and idle ones, do not."""
        lines = [_command_line(process) for process in self.process.children(recursive=True)]
        return [line for line in lines if re.search(r"^ray::(?!IDLE|\w+Agent)|workflows/\w+\.py|verifier_worker", line)]


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:  # it has just ended
        return ""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _wait(until: Callable[[], Any], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"not in {seconds:g} s: {what}"
        time.sleep(0.1)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Started in the checkout, as README.md says."""
    # Not pytest's folder: the paths of sockets in it would be longer than Linux allows.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        token = Path(folder) / "token"
        token.write_text(os.urandom(32).hex())
        environment = {name: value for name, value in ENVIRONMENT.items() if name != "COLUMNS"} | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(token),
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        dashboard, agent, client = _free_port(), _free_port(), _free_port()
        command = [
            "ray", "start", "--head", "--block", "--num-cpus=2", f"--object-store-memory={2**28}", f"--temp-dir={folder}/ray", "--port=0",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}",
            f"--ray-client-server-port={client}",
        ]  # fmt: skip
        url = f"http://127.0.0.1:{dashboard}"
        with (Path(folder) / "head.log").open("w") as log:
            head = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        process = psutil.Process(head.pid)
        try:
            found = Path(folder) / "ray" / "ray_current_cluster"
            client_environment = environment | {"RAY_API_SERVER_ADDRESS": url}
            _wait(lambda: found.exists() or head.poll() is not None, 60, "the head starts")
            cluster = Cluster(url, found.read_text().strip(), process, client_environment)
            _wait(lambda: _answers(cluster), 60, "the dashboard answers")
            yield cluster
        finally:
            _end(head, process)


def _answers(cluster: Cluster) -> bool:
    try:
        cluster.jobs()
    except urllib.error.URLError:
        return False
    return True


def _end(head: subprocess.Popen[bytes], process: psutil.Process) -> None:
    """Ends the head and what it started. `ray stop` would end every Ray on the machine."""
    children = process.children(recursive=True) if head.poll() is None else []
    head.terminate()
    for left in psutil.wait_procs([process, *children], timeout=40)[1]:
        left.kill()
    head.wait()


@dataclass(frozen=True)
class Stopped:
    job: str
    rows: list[Any]
    """Lines of metrics at the last checkpoint."""
    checkpoint: int
    workers: list[str]
    """Command lines of the processes that worked for it before it was stopped."""
    out: Path
    entrypoint: list[str]


@pytest.fixture(scope="module")
def stopped(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    """The bare command, with a folder that is relative to the checkout, stopped in the middle."""
    out = tmp_path_factory.mktemp("job") / "run"
    entrypoint = ["python", "workflows/calibrate.py", *SLOW_ENOUGH, "--out", os.path.relpath(out, ROOT)]
    workers = _stopped_at_a_checkpoint(cluster, "stopped", entrypoint, out)
    checkpoint = max(int(folder.name[5:]) for folder in out.glob("checkpoints/step-*") if folder.name[5:].isdigit())
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return Stopped("stopped", rows[:checkpoint], checkpoint, workers, out, entrypoint)


def _stopped_at_a_checkpoint(cluster: Cluster, job: str, entrypoint: list[str], out: Path) -> list[str]:
    """Command lines of what worked for the job before it was stopped."""
    submitted = cluster.ray("job", "submit", "--no-wait", "--submission-id", job, "--", *entrypoint)
    assert submitted.returncode == 0, submitted.stderr
    _wait(lambda: list(out.glob("**/checkpoints/step-*/*")), 200, "a checkpoint")
    workers = cluster.workers()
    ended = cluster.ray("job", "stop", job)
    assert ended.returncode == 0, ended.stderr
    return workers


def _assert_free(cluster: Cluster, job: str) -> None:
    _wait(lambda: not cluster.workers(), 20, "no process works for the job")
    for kind in ("actors", "placement_groups"):
        states = {each["state"] for each in cluster.get(f"/api/v0/{kind}")["data"]["result"]["result"]}
        assert states <= {"DEAD", "REMOVED"}, kind
    assert cluster.get(f"/api/jobs/{job}")["status"] == "STOPPED"


def test_stopping_a_job_frees_all_that_worked_for_it(cluster: Cluster, stopped: Stopped) -> None:
    for title in ("workflows/calibrate.py", "verifier_worker", "ray::RolloutActor", "ray::LearnerProcess", "ray::ScorerActor"):
        assert any(title in worker for worker in stopped.workers), title  # or there was nothing to free
    _assert_free(cluster, stopped.job)


def test_a_stopped_job_says_how_to_go_on(cluster: Cluster, stopped: Stopped) -> None:
    assert "--resume" in cluster.log(stopped.job).splitlines()[-1]
    assert not (stopped.out / "report.json").exists()


@pytest.fixture(scope="module")
def resumed(cluster: Cluster, stopped: Stopped) -> str:
    """The job that went on."""
    ended = cluster.ray("job", "submit", "--submission-id", "resumed", "--", *stopped.entrypoint, "--resume")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    return "resumed"


def test_the_same_command_with_resume_goes_on_from_the_last_checkpoint(resumed: str, stopped: Stopped) -> None:
    rows = [json.loads(line) for line in (stopped.out / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(STEPS))
    assert rows[: stopped.checkpoint] == stopped.rows  # with their seconds: they were not done again
    assert (stopped.out / "report.json").exists()


def test_a_job_s_log_is_lines_that_end_with_where_the_results_are(cluster: Cluster, resumed: str, stopped: Stopped) -> None:
    before, after = cluster.log(stopped.job), cluster.log(resumed)
    assert not re.search(r"[\r\x08\x1b]", before + after)
    lines = [*before.splitlines(), *after.splitlines()]
    assert not [line for line in lines if "Warning" in line or "WARNING" in line]
    assert Path(lines[-1].split(": ")[-1]).samefile(stopped.out / "report.html")
    progress = [line for line in lines if re.fullmatch(rf"calibrating, seed 1: \d+/{STEPS}  right \d\.\d+  KL -?\d\.\d+", line)]
    assert progress[-1].startswith(f"calibrating, seed 1: {STEPS}/{STEPS}")
    assert len(progress) >= 3


def _note(module: str) -> str:
    return module.replace("/", "-")


def _copy_of_the_checkout(folder: Path) -> Path:
    """Somewhere else, with modules that note where they were imported from, and what is too large to be sent."""
    notes = folder / "notes"
    notes.mkdir()
    copy = folder / "elsewhere"
    for name in ("raydistill", "workflows", "configs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".gitignore", copy)
    for module in NOTING:
        with (copy / module).open("a") as source:
            source.write(f"\nopen({str(notes / _note(module))!r}, 'a').write(__file__ + '\\n')\n")
    for name in (".venv", "runs"):  # Ray refuses packages of more than 500 MiB
        (copy / name).mkdir()
        with (copy / name / "large").open("wb") as file:
            file.truncate(600 * 2**20)
    return copy


NOTING = {
    "raydistill/jobs.py": "the driver",
    "raydistill/rollout/actor.py": "an engine",
    "raydistill/learner/worker.py": "the learner",
    "raydistill/scoring/actor.py": "a scorer",
    "raydistill/tasks/verifier_worker.py": "a verifier",
}


def test_a_working_directory_from_elsewhere_travels_to_every_process(cluster: Cluster, tmp_path: Path) -> None:
    copy = _copy_of_the_checkout(tmp_path)
    ended = cluster.ray("job", "submit", "--working-dir", ".", "--", "python", "workflows/calibrate.py", *QUICK, cwd=copy)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    for module, who in NOTING.items():
        imported = set((tmp_path / "notes" / _note(module)).read_text().split())
        assert len(imported) == 1, who
        assert imported.pop().endswith(f"/{module}")
    uploaded = Path((tmp_path / "notes" / _note("raydistill/jobs.py")).read_text().split()[0]).parents[1]
    assert "working_dir_files" in uploaded.parts
    assert not (uploaded / ".venv").exists()
    assert not (uploaded / "runs" / "large").exists()
    warning = next(line for line in ended.stdout.splitlines() if line.startswith("raydistill: warning"))
    assert str(uploaded / "runs" / "arithmetic") in warning
    assert (uploaded / "runs" / "arithmetic" / "report.json").exists()


@pytest.mark.slow
def test_a_sweep_as_a_job_is_stopped_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    settings = [*SLOW_ENOUGH, "students=null", "rollout.engine=transformers", "--eta=0", "sweep.trials_at_once=1", "--out", str(out)]
    entrypoint = ["python", "workflows/sweep.py", *settings]
    workers = _stopped_at_a_checkpoint(cluster, "stopped-sweep", entrypoint, out)
    assert any("ray::LearnerProcess" in worker for worker in workers)
    _assert_free(cluster, "stopped-sweep")
    assert not (out / "sweep.json").exists()
    ended = cluster.ray("job", "submit", "--submission-id", "resumed-sweep", "--", *entrypoint, "--resume")
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr
    (trial,) = json.loads((out / "sweep.json").read_text())["trials"]
    assert (trial["id"], trial["status"]) == ("eta+0", "done")
    log = cluster.log("resumed-sweep")
    assert not re.search(r"[\r\x08\x1b]", log)
    assert [
        line for line in log.splitlines() if re.search(r"eta\+0 .* done ", line)
    ]  # a row of the table, which is not broken into several


REFUSED = {
    "none": {"RAY_AUTH_MODE": "disabled"},
    "none-in-its-place": {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": ""},
    "wrong": {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "ab" * 32},
}


@pytest.mark.parametrize("token", REFUSED)
def test_a_job_without_the_token_is_refused(cluster: Cluster, tmp_path: Path, token: str) -> None:
    before, out = cluster.jobs(), tmp_path / "run"
    command = ("python", "workflows/calibrate.py", *QUICK, "--out", str(out))
    ended = cluster.ray("job", "submit", "--", *command, HOME=str(tmp_path), **REFUSED[token])
    assert ended.returncode != 0
    assert "uthentication" in ended.stderr
    assert cluster.jobs() == before
    assert not out.exists()


@pytest.mark.parametrize("token", REFUSED)
def test_a_run_that_joins_without_the_token_ends_with_one_line(cluster: Cluster, tmp_path: Path, token: str) -> None:
    out = tmp_path / "run"
    environment = cluster.environment | {"RAY_ADDRESS": cluster.address, "HOME": str(tmp_path), **REFUSED[token]}
    command = [sys.executable, "workflows/calibrate.py", *QUICK, "--out", str(out)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"raydistill: RAY_ADDRESS={cluster.address}: ")
    assert "RAY_AUTH_TOKEN_PATH" in line
    assert not out.exists()
