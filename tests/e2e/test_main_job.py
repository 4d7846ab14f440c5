"""The main job from the command line: real vLLM, Ray and DeepSpeed on the demo trio, with few steps."""

import json
import os
import random
import signal
import subprocess
import time
from contextlib import suppress

import psutil
import pytest

from tests.e2e.conftest import ENVIRONMENT, TINY, command, metrics, report

CONTRACT = {
    "step", "weights_version", "task_reward", "cal_reward", "kl_anchor", "mismatch_kl", "length", "truncated",
    "verifier_failures", "loss", "grad_norm",
}  # fmt: skip
WHOLE = [*TINY, "diagnosis={prompts: 8, samples: 2, wrong_pairs: 8}"]
PHASES = {"rollout", "verify", "score", "learn", "sync"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nobody disturbed."""
    out = tmp_path_factory.mktemp("run") / "whole"
    done = subprocess.run(
        command("knob.eta=-1", *WHOLE, "--out", str(out)),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_the_folder_is_as_the_contract_says(finished):
    for name in ("config.yaml", "metrics.jsonl", "report.json", "report.html", "teacher/model.safetensors", "teacher/config.json"):
        assert (finished / name).is_file(), name
    students = {path.name for path in (finished / "students").iterdir()}
    assert students == {f"{name}-1" for name in ("sft_gold", "seqkd", "kd", "gkd", "control-seqkd", "control-kd", "control-gkd")} | {"base"}
    assert (finished / "students" / "control-gkd-1" / "model.safetensors").is_file()


def test_a_line_a_step_with_the_contract_s_fields(finished):
    rows = metrics(finished)
    assert [row["step"] for row in rows] == [0, 1, 2, 3]
    assert [row["weights_version"] for row in rows] == [0, 1, 2, 3]
    assert all(set(row) >= CONTRACT for row in rows)
    first = json.loads((finished / "metrics.jsonl").read_text().splitlines()[0])
    assert set(first["seconds"]) == PHASES


def test_the_teacher_moved_and_the_engines_followed(finished):
    rows = metrics(finished)
    assert rows[0]["kl_anchor"] == pytest.approx(0, abs=1e-5)  # a sum over a sequence of what float32 rounds to 1e-7 a token
    assert rows[-1]["kl_anchor"] > 1e-4
    assert max(row["mismatch_max"] for row in rows) < 1e-3
    assert max(row["sync_deviation"] for row in rows) < 1e-3


def test_the_calibrated_teacher_loads_in_transformers(finished):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(finished / "teacher"), AutoTokenizer.from_pretrained(finished / "teacher")
    assert model(**tokenizer("1+2-3=", return_tensors="pt", return_token_type_ids=False)).logits.isfinite().all()


def test_the_report_has_the_contract_s_shape(finished):
    data = report(finished)
    assert data["knob"] == {"eta": -1.0}
    assert set(data) >= {"task", "split", "knob", "teacher", "baselines", "students", "claims"}
    assert [student["method"] for student in data["students"]] == ["seqkd", "kd", "gkd"]
    assert data["teacher"]["original"]["sampled"]["n"] == 48
    seconds = json.loads((finished / "report.json").read_text())["seconds"]
    assert all(seconds[phase] > 0 for phase in ("total", "calibrate", "distil", "evaluate"))


def test_every_student_is_diagnosed_with_either_teacher(finished):
    pairs = report(finished)["diagnosis"]["pairs"]
    assert [pair["student"] for pair in pairs] == ["base", "seqkd", "kd", "gkd"]
    for pair in pairs:
        for teacher in ("original", "calibrated"):
            assert pair[teacher]["gap"]["value"] > 0
            assert pair[teacher]["gap"]["n"] == 8
    there = {path.name for path in (finished / "diagnosis").glob("*.json")}
    assert there == {
        f"{name}.json" for name in ("base", "base-1", "seqkd-1", "kd-1", "gkd-1", *(f"control-{m}-1" for m in ("seqkd", "kd", "gkd")))
    }
    assert "Traps and symptoms" in (finished / "report.html").read_text()


def test_a_finished_run_is_not_redone(run, finished):
    before = (finished / "report.json").stat().st_mtime_ns
    ended = run("knob.eta=-1", *WHOLE, "--out", str(finished))
    assert (ended.code, (finished / "report.json").stat().st_mtime_ns) == (0, before)


def test_another_config_does_not_overwrite_it(run, finished):
    ended = run("knob.eta=1", *TINY, "--out", str(finished))
    assert ended.code == 2
    assert "another config" in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "ray::RolloutActor", "ray::LearnerProcess"])
def test_sigkill_at_a_random_step_ends_in_the_same_figures(run, finished, tmp_path, victim):
    """A rollout worker is replaced and nobody notices; without driver or learner the run ends, and --resume goes on."""
    out = tmp_path / "killed"
    started = subprocess.Popen(
        command("knob.eta=-1", *WHOLE, "--out", str(out)), stderr=subprocess.PIPE, text=True, start_new_session=True, env=ENVIRONMENT
    )
    _wait_for_steps(out, random.Random(int(time.time())).randint(1, 4))
    os.kill(started.pid if victim == "driver" else _process(started.pid, victim), signal.SIGKILL)
    _, err = started.communicate(timeout=300)
    assert started.returncode == {"driver": -signal.SIGKILL, "ray::RolloutActor": 0, "ray::LearnerProcess": 3}[victim], err
    if victim == "ray::LearnerProcess":
        assert "learner" in err.splitlines()[-1]
        assert "--resume" in err.splitlines()[-1]
    if victim != "ray::RolloutActor":
        assert run("knob.eta=-1", *WHOLE, "--out", str(out)).code == 2
        assert run("knob.eta=-1", *WHOLE, "--out", str(out), "--resume").code == 0
    assert metrics(out) == metrics(finished)
    assert report(out) == report(finished)


def _process(driver, name):
    """The actor of the run's own Ray whose process title starts with `name`."""
    for process in psutil.Process(driver).children(recursive=True):
        with suppress(psutil.Error):
            if process.cmdline()[0].startswith(name):
                return process.pid
    raise AssertionError(f"no {name} under process {driver}")


def _wait_for_steps(out, steps):
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        lines = (out / "metrics.jsonl").read_text().count("\n") if (out / "metrics.jsonl").exists() else 0
        if lines >= steps:
            return
        time.sleep(0.05)
    raise AssertionError(f"no {steps} steps in time")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_run(run, finished, tmp_path):
    assert run("knob.eta=-1", *WHOLE, "--out", str(tmp_path / "again")).code == 0
    assert metrics(tmp_path / "again") == metrics(finished)
    assert report(tmp_path / "again") == report(finished)


@pytest.mark.slow
def test_engines_follow_the_learner_in_bfloat16(run, tmp_path):
    ended = run("knob.eta=1", *TINY, "learner.dtype=bfloat16", "students=null", "--out", str(tmp_path / "low"))
    assert ended.code == 0, ended.err
    rows = metrics(tmp_path / "low")
    assert len(rows) == 4
    assert max(row["sync_deviation"] for row in rows) > 1e-3  # or it was not bfloat16
    assert rows[-1]["kl_anchor"] > 1e-4
