"""`raydistill distill` as a user calls it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from raydistill.models.load import load_model
from tests.e2e.conftest import ENVIRONMENT, Ended, metrics

SMALL = ["evaluation.prompts=24", "evaluation.teacher_samples=1", "rollout.engine=transformers", "track.uri=null"]
KD = "method={method: kd, samples: 48, steps: 4, batch: 8}"


def command(*arguments: str) -> list[str]:
    return [sys.executable, "workflows/distill.py", *SMALL, *arguments]


def distill(*arguments: str) -> Ended:
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=400, check=False, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


@pytest.fixture(scope="module")
def kd(tmp_path_factory) -> Path:
    """A student by kd, with vLLM."""
    folder = tmp_path_factory.mktemp("distill") / "kd"
    ended = distill(*_with_records(folder), "--out", str(folder))
    assert ended.code == 0, ended.err
    return folder


def _with_records(folder: Path) -> list[str]:
    return [KD, "rollout.engine=vllm", "train.checkpoint_every=1", f"track.uri=sqlite:///{folder.parent}/mlflow.db"]


def test_a_run_leaves_a_student_and_a_report(kd) -> None:
    found = report(kd)
    assert found["method"] == "kd"
    assert found["teacher"]["sampled"]["mean"] > 0.9 > found["base"]["sampled"]["mean"]
    assert found["budget"]["steps"] == 4
    assert found["teacher_mass"] == pytest.approx(1, abs=1e-4)
    assert 0 < found["traces"]["length"] < 32
    assert load_model(kd / "student").config.vocab_size
    assert [row["step"] for row in metrics(kd)] == [0, 1, 2, 3]


def test_what_is_complete_is_not_redone(kd) -> None:
    before = (kd / "report.json").stat().st_mtime
    ended = distill(*_with_records(kd), "--out", str(kd))
    assert ended.code == 0, ended.err
    assert "student" in ended.out
    assert (kd / "report.json").stat().st_mtime == before


def test_mlflow_has_its_steps_scores_and_student(kd) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{kd.parent}/mlflow.db")
    run = client.get_run((kd / "mlflow-run-id").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.tags["raydistill.kind"] == "distillation"
    assert run.data.params["method.method"] == "kd"
    assert run.data.metrics["student/sampled"] == report(kd)["student"]["sampled"]["mean"]
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == [0, 1, 2, 3]
    assert {"report.json", "student"} <= {artefact.path for artefact in client.list_artifacts(run.info.run_id)}


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on_to_the_same_student(kd, tmp_path) -> None:
    folder = tmp_path / "run"
    arguments = [KD, "rollout.engine=vllm", "train.checkpoint_every=1", "--out", str(folder)]
    process = subprocess.Popen(command(*arguments), env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _wait_for_checkpoint(folder / "checkpoints" / "step-00002", process)
    process.kill()
    process.wait()
    assert "--resume" in distill(*arguments).err
    ended = distill(*arguments, "--resume")
    assert ended.code == 0, ended.err
    assert metrics(folder) == metrics(kd)
    assert report(folder)["student"] == report(kd)["student"]


def test_scored_traces_give_the_same_student_without_the_teacher_and_with_two_processes(kd, tmp_path) -> None:
    folder = tmp_path / "offline"
    ended = distill(KD, "teacher=null", "--offline", str(kd / "scored"), "train.processes=2", "--out", str(folder))
    assert ended.code == 0, ended.err
    assert report(folder)["teacher"] is None
    for one, two in zip(metrics(kd), metrics(folder), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], abs=1e-4)
        assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-3)
        assert one["tokens"] == two["tokens"]


ACROSS = ["student.model=demo:proxy", "method={method: gkd, samples: 32, steps: 6, batch: 8, on_policy: 0.5, jsd_beta: 0}"]
"""The demo's proxy has a tokenizer of its own."""


@pytest.fixture(scope="module")
def across(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("distill") / "across"
    ended = distill(*ACROSS, "train.checkpoint_every=1", "--out", str(folder))
    assert ended.code == 0, ended.err
    return folder


def test_half_on_policy_across_tokenizers(across) -> None:
    rows = metrics(across)
    assert [row["step"] for row in rows] == list(range(6))
    assert {row["fresh"] for row in rows} == {True, False}
    assert all(row["loss"] > 0 and row["teacher_mass"] is None for row in rows)
    assert report(across)["budget"]["samples"] == 8 * sum(row["fresh"] for row in rows) + min(32, 8 * sum(not row["fresh"] for row in rows))


def test_gold_across_tokenizers_half_on_policy(tmp_path) -> None:
    folder = tmp_path / "run"
    ended = distill(*ACROSS, "method.across=gold", "--out", str(folder))
    assert ended.code == 0, ended.err
    rows = metrics(folder)
    assert {row["fresh"] for row in rows} == {True, False}
    assert all(row["loss"] > 0 and row["teacher_mass"] == pytest.approx(1, abs=1e-4) for row in rows)


def test_uld_of_traces_that_were_scored_for_another_student(across, tmp_path) -> None:
    folder = tmp_path / "run"
    method = "method={method: kd, across: uld, samples: 32, steps: 3, batch: 8}"
    ended = distill("student.model=demo:proxy", method, "--offline", str(across / "scored"), "--out", str(folder))
    assert ended.code == 0, ended.err
    assert all(row["loss"] > 0 and row["teacher_mass"] == pytest.approx(1, abs=1e-3) for row in metrics(folder))


def test_sampled_reverse_kl(tmp_path) -> None:
    folder = tmp_path / "run"
    ended = distill("method={method: sampled_rkl, steps: 2, batch: 8}", "--out", str(folder))
    assert ended.code == 0, ended.err
    assert all(row["fresh"] and row["grad_norm"] > 0 and row["teacher_mass"] is None for row in metrics(folder))
    assert report(folder)["budget"]["samples"] == 16
    assert not (folder / "scored").exists()


@pytest.mark.slow
def test_a_worker_that_is_killed_goes_on_to_the_same_student(across, tmp_path) -> None:
    """It dies after a checkpoint, is started again and goes on from there."""
    folder = tmp_path / "run"
    arguments = command(*ACROSS, "train.checkpoint_every=1", "--out", str(folder))
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        _kill_worker_once_there_is(folder / "checkpoints" / "step-00002", process)
        out, _ = process.communicate(timeout=400)
    finally:
        process.kill()
    assert process.returncode == 0, out
    assert metrics(folder) == metrics(across)
    assert report(folder)["student"] == report(across)["student"]


def test_on_policy_with_two_processes_of_which_one_has_nothing_to_do(tmp_path) -> None:
    folder = tmp_path / "run"
    ended = distill("method={method: on_policy_rkl, steps: 2, batch: 1}", "train.processes=2", "scorers=2", "--out", str(folder))
    assert ended.code == 0, ended.err
    assert all(row["fresh"] and row["teacher_mass"] == pytest.approx(1, abs=1e-4) for row in metrics(folder))


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        ["teacher=null", "method={method: sft, samples: 16, steps: 2, batch: 4}"],
        ["method={method: seqkd, samples: 16, steps: 2, batch: 4}"],
    ],
)
def test_learning_from_tokens(tmp_path, method) -> None:
    folder = tmp_path / "run"
    ended = distill(*method, "train.lora={rank: 4}", "train.dtype=bfloat16", "--out", str(folder))
    assert ended.code == 0, ended.err
    found = report(folder)
    assert found["budget"]["samples"] == 8
    assert (found["teacher"] is None) == (found["method"] == "sft")


def _wait_for_checkpoint(checkpoint: Path, process: subprocess.Popen) -> None:
    """That, or a later one."""
    deadline = time.monotonic() + 300
    while not any(found.name >= checkpoint.name for found in checkpoint.parent.glob("step-?????")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _kill_worker_once_there_is(checkpoint: Path, process: subprocess.Popen) -> None:
    _wait_for_checkpoint(checkpoint, process)
    workers = [child for child in psutil.Process(process.pid).children(recursive=True) if "RayTrainWorker" in " ".join(child.cmdline())]
    assert workers
    workers[0].send_signal(signal.SIGKILL)


def test_a_training_that_diverges_ends_with_a_line_that_says_so(kd, tmp_path) -> None:
    ended = distill(KD, "--offline", str(kd / "scored"), "method.lr=1e30", "train.max_failures=0", "--out", str(tmp_path / "run"))
    assert ended.code == 3, ended.err
    last = ended.err.strip().splitlines()[-1]
    assert "lower the lr" in last
    assert "run.log" in last
    assert "--resume" in last
    assert "Traceback" not in ended.err
