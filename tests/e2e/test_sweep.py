"""The sweep from the command line: real Ray Tune, vLLM, Ray and DeepSpeed on the demo trio, with few steps."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.e2e.conftest import ENVIRONMENT, TINY, Ended, executed, metrics

SMALL = [*TINY, "students.methods=[{method: seqkd, samples: 64, steps: 6}]"]
TWO = ["--eta=1", "--eta=-1"]


def command(*arguments):
    return [sys.executable, "workflows/sweep.py", *arguments]


def sweep(*arguments, timeout=500):
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=timeout, check=False, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


def result(folder):
    """sweep.json without what differs from run to run."""

    def timeless(node):
        if isinstance(node, dict):
            return {key: timeless(value) for key, value in node.items() if key != "seconds"}
        return [timeless(value) for value in node] if isinstance(node, list) else node

    return timeless(json.loads((folder / "sweep.json").read_text()))


def database(out):
    return f"sqlite:///{out.parent / 'mlflow.db'}"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A sweep of two trials that nobody disturbed, and what it said."""
    out = tmp_path_factory.mktemp("sweep") / "whole"
    ended = sweep(*SMALL, *TWO, f"track.uri={database(out)}", "--out", str(out))
    assert ended.code == 0, ended.err
    return out, ended


def test_sweep_json_is_as_the_contract_says(finished):
    trials = json.loads((finished[0] / "sweep.json").read_text())["trials"]
    assert [(trial["id"], trial["eta"], trial["status"]) for trial in trials] == [("eta-1", -1.0, "done"), ("eta+1", 1.0, "done")]
    assert [trial["overrides"] for trial in trials] == [{"knob.eta": -1.0}, {"knob.eta": 1.0}]
    for trial in trials:
        assert trial["report"] == json.loads((finished[0] / "trials" / trial["id"] / "report.json").read_text())
        assert trial["report"]["knob"]["eta"] == trial["eta"]


def test_a_trial_s_folder_is_that_of_a_run(finished):
    for name in ("config.yaml", "metrics.jsonl", "report.html", "teacher/model.safetensors", "students/control-seqkd-1/evaluation.json"):
        assert (finished[0] / "trials" / "eta-1" / name).is_file(), name


def test_what_trials_share_is_made_once_and_by_the_same_actors(finished):
    out, ended = finished
    assert len([path for path in (out / "baselines").iterdir() if path.is_dir()]) == 1
    links = [(out / "trials" / id_ / "students" / "control-seqkd-1" / "model.safetensors").stat().st_ino for id_ in ("eta-1", "eta+1")]
    assert links[0] == links[1]
    assert ended.err.count("starting the actors ...") == 1
    assert "eta+1: calibrating, seed 1: 4/4" in ended.err
    assert not (out / "tune").exists()


def test_the_page_and_the_table_name_every_trial(finished):
    out, ended = finished
    for text in ((out / "sweep.html").read_text(), ended.out):
        assert "eta-1" in text
        assert "eta+1" in text


def test_a_finished_sweep_is_not_redone_nor_overwritten(finished):
    out, _ = finished
    before = (out / "trials" / "eta-1" / "report.json").stat().st_mtime_ns
    again = sweep(*SMALL, *TWO, f"track.uri={database(out)}", "--out", str(out))
    assert (again.code, (out / "trials" / "eta-1" / "report.json").stat().st_mtime_ns) == (0, before)
    assert "complete" in again.err
    other = sweep(*SMALL, "--eta=2", "--out", str(out))
    assert other.code == 2
    assert "another config" in other.err


def test_mlflow_has_the_sweep_its_trials_and_their_students_and_the_best_teacher(finished):
    from mlflow import MlflowClient

    client = MlflowClient(database(finished[0]))
    (experiment,) = client.search_experiments(filter_string="name = 'raydistill'")
    whole = (finished[0] / "mlflow-run-id").read_text()
    trials = client.search_runs([experiment.experiment_id], f"tags.`mlflow.parentRunId` = '{whole}'")
    assert {run.data.tags["raydistill.trial"] for run in trials} == {"eta-1", "eta+1"}
    assert {run.info.status for run in trials} == {client.get_run(whole).info.status} == {"FINISHED"}
    students = client.search_runs([experiment.experiment_id], f"tags.`raydistill.kind` = 'student' and tags.`raydistill.sweep` = '{whole}'")
    assert {(run.info.run_name, run.data.params["eta"]) for run in students} == {
        (f"{name} eta{shown}", eta) for name in ("seqkd-1", "control-seqkd-1") for shown, eta in (("-1", "-1.0"), ("+1", "1.0"))
    }
    assert {file.path for file in client.list_artifacts(whole)} >= {"sweep.json", "sweep.html", "config.yaml"}
    kept = [trial for trial in result(finished[0])["trials"] if trial["report"]["claims"]["teacher_kept"]]
    assert len(client.search_model_versions("name = 'arithmetic'")) == (1 if kept else 0)


def test_the_notebook_compares_the_students_of_a_sweep(finished):
    shown = executed("02_compare_students", {"TRACKING_URI": database(finished[0])})
    assert "arithmetic: 4 students at 2 settings of the knob" in shown
    assert "image/png" in shown


@pytest.mark.slow
def test_a_server_that_is_away_stops_nothing_and_is_told_when_it_is_back(finished, tmp_path):
    from mlflow import MlflowClient

    from tests.track.server import free_port, serving

    out, port = tmp_path / "away", free_port()
    arguments = [*SMALL, *TWO, f"track.uri=http://127.0.0.1:{port}", "--out", str(out)]
    ended = sweep(*arguments)
    assert ended.code == 0, ended.err
    assert "MLflow cannot be used there" in ended.err
    assert result(out) == result(finished[0])
    with serving(tmp_path, port) as uri:
        assert sweep(*arguments, "--resume").code == 0
        client = MlflowClient(uri)
        (experiment,) = client.search_experiments(filter_string="name = 'raydistill'")
        runs = client.search_runs([experiment.experiment_id])
        assert sorted(run.data.tags["raydistill.kind"] for run in runs) == ["calibration"] * 2 + ["student"] * 4 + ["sweep"]
        assert {run.info.status for run in runs} == {"FINISHED"}


def test_a_cluster_that_is_too_small_is_shown_what_is_wanted_and_what_there_is(tmp_path):
    ended = sweep(*SMALL, *TWO, "rollout.cpus=500", "--out", str(tmp_path / "big"))
    assert ended.code == 2
    assert "500" in ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_sweep_beside_must_be_one(tmp_path):
    ended = sweep(*SMALL, *TWO, f"sweep.beside={tmp_path}", "--dry-run")
    assert ended.code == 2
    assert "sweep.beside" in ended.err


@pytest.mark.slow
def test_sigkill_of_the_driver_then_resume_ends_in_the_same_figures(finished, tmp_path):
    """At a random moment; no trial that was finished is redone, and no process of the killed one works on."""
    out = tmp_path / "killed"
    started = subprocess.Popen(command(*SMALL, *TWO, "--out", str(out)), stderr=subprocess.DEVNULL, start_new_session=True, env=ENVIRONMENT)
    time.sleep(random.Random(time.time()).uniform(20, 75))
    children = psutil.Process(started.pid).children(recursive=True)
    started.send_signal(signal.SIGKILL)
    started.wait()
    before = {path: path.stat().st_mtime_ns for path in out.glob("trials/*/report.json")}
    assert not [one for one in psutil.wait_procs(children, timeout=60)[1] if "Agent" not in " ".join(one.cmdline())]
    if not (out / "sweep.json").exists() and (out / "config.yaml").exists():
        assert sweep(*SMALL, *TWO, "--out", str(out)).code == 2
    ended = sweep(*SMALL, *TWO, "--out", str(out), "--resume")
    assert ended.code == 0, ended.err
    assert result(out) == result(finished[0])
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_a_trial_that_fails_is_named_and_tried_again_and_the_others_go_on(tmp_path):
    """Weights that overflow are found out when the engines are to have them."""
    out = tmp_path / "failing"
    arguments = [*SMALL, "--eta=1", "sweep.over={learner.lr: [1.0e-3, 1.0e+30]}", "--out", str(out)]
    ended = sweep(*arguments)
    assert ended.code == 3
    assert "1 of 2 trials failed (eta+1-lr1e+30)" in ended.err.splitlines()[-1]
    assert "--resume" in ended.err.splitlines()[-1]
    assert ended.err.count("failed, and is tried again") == 1
    good, bad = json.loads((out / "sweep.json").read_text())["trials"]
    assert (good["status"], bad["status"], bad["report"]) == ("done", "failed", None)
    assert "weights 1 did not reach the rollout workers" in bad["error"]
    before = (out / "trials" / good["id"] / "report.json").stat().st_mtime_ns
    assert sweep(*arguments, "--resume").code == 3
    assert (out / "trials" / good["id"] / "report.json").stat().st_mtime_ns == before


@pytest.mark.slow
def test_a_trial_s_actor_that_dies_costs_no_figure(finished, tmp_path):
    out = tmp_path / "hurt"
    started = subprocess.Popen(command(*SMALL, *TWO, "--out", str(out)), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 200
    while not (out / "trials" / "eta-1" / "metrics.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    (learner,) = [one for one in psutil.Process(started.pid).children(recursive=True) if one.name().startswith("ray::LearnerP")]
    os.kill(learner.pid, signal.SIGKILL)
    _, err = started.communicate(timeout=400)
    assert started.returncode == 0, err
    assert "learner" in next(line for line in err.splitlines() if "tried again" in line)
    assert result(out) == result(finished[0])


@pytest.mark.slow
def test_asha_stops_what_does_worse_by_its_rule(tmp_path):
    """One trial at a time: each look is compared with those before it at the same step."""
    out = tmp_path / "asha"
    looks = "sweep.scheduler={kind: asha, first_look: 1, students: {samples: 128, steps: 30}, prompts: 64}"
    ended = sweep(
        *SMALL, "--eta=-2", "--eta=-1", "--eta=0", "--eta=1", "learner.lr=5e-3", "sweep.trials_at_once=1", looks, "--out", str(out)
    )
    assert ended.code == 0, ended.err
    trials = json.loads((out / "sweep.json").read_text())["trials"]
    seen = {trial["id"]: json.loads((out / "trials" / trial["id"] / "looks.json").read_text()) for trial in trials}
    earlier = {"1": [], "2": []}
    for trial in trials:
        stopped = False
        for step, score in seen[trial["id"]].items():
            assert not stopped
            stopped = bool(earlier[step]) and score < np.percentile(earlier[step], 50)
            earlier[step].append(score)
        assert trial["status"] == ("stopped" if stopped else "done"), trial["id"]
    assert {"stopped", "done"} == {trial["status"] for trial in trials}
    assert ended.err.count("starting the actors ...") == 1  # a stopped trial leaves them to the next


POPULATION = [
    *SMALL,
    "--eta=1",
    "sweep.over={learner.lr: [1.0e-4, 1.0e-3, 5.0e-3]}",
    "sweep.scheduler={kind: pbt, every: 1, replace: 0.34, students: {samples: 64, steps: 6}, prompts: 24}",
]


@pytest.fixture(scope="module")
def population(tmp_path_factory):
    out = tmp_path_factory.mktemp("sweep") / "population"
    ended = sweep(*POPULATION, "--out", str(out))
    assert ended.code == 0, ended.err
    return out


@pytest.mark.slow
def test_a_population_decides_by_its_looks_and_its_trials_can_be_had_from_their_schedules(population, tmp_path):
    from raydistill.config.sweep import PBT
    from raydistill.population import next_generation

    told = json.loads((population / "population.json").read_text())
    pbt = PBT.model_validate({"kind": "pbt", "every": 1, "replace": 0.34})
    lineages = {id_: ({"learner.lr": one["learner.lr"]},) for id_, one in told["generations"][0]["trials"].items()}
    for generation, seen in enumerate(told["generations"], start=1):
        assert seen["steps"] == generation
        settings = {id_: one["learner.lr"] for id_, one in seen["trials"].items()}
        assert settings == {id_: one[-1]["learner.lr"] for id_, one in lineages.items()}
        scores = {id_: one["student"] for id_, one in seen["trials"].items()}
        lineages = next_generation(lineages, scores, {"learner.lr": [1e-4, 1e-3, 5e-3]}, pbt, seed=1)
    assert {id_: list(one) for id_, one in lineages.items()} == told["lineages"]
    trials = json.loads((population / "sweep.json").read_text())["trials"]
    assert {trial["status"] for trial in trials} == {"done"}
    changed = next(trial for trial in trials if trial.get("schedule"))
    assert not (population / "population").exists()
    again, known = tmp_path / "again", population / "trials" / changed["id"]
    arguments = ["--config", str(known / "config.yaml"), "--out", str(again)]
    done = subprocess.run([sys.executable, "workflows/calibrate.py", *arguments], env=ENVIRONMENT, check=False)
    assert done.returncode == 0
    assert metrics(again) == metrics(known)
    assert json.loads((again / "report.json").read_text())["teacher"] == changed["report"]["teacher"]


@pytest.mark.slow
def test_a_population_that_is_killed_decides_alike_when_it_goes_on(population, tmp_path):
    out = tmp_path / "killed"
    started = subprocess.Popen(command(*POPULATION, "--out", str(out)), stderr=subprocess.DEVNULL, start_new_session=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 300
    while not list(out.glob("population/step2-*/look.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    started.send_signal(signal.SIGKILL)
    started.wait()
    known = {path: path.stat().st_mtime_ns for path in out.glob("population/*/look.json")}
    assert known
    assert not (out / "population.json").exists()
    time.sleep(20)  # until the actors of the killed one are gone
    resumed = subprocess.Popen(command(*POPULATION, "--out", str(out), "--resume"), stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    while resumed.poll() is None and not (out / "population.json").exists():
        time.sleep(0.1)
    assert {path: path.stat().st_mtime_ns for path in known if path.exists()} == known
    _, err = resumed.communicate(timeout=400)
    assert resumed.returncode == 0, err
    assert result(out) == result(population)


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_twenty_starts_and_early_stops_leave_nothing_behind(ray_cluster, tmp_path):
    """Each trial crosses a field that its actors are started with, so that each starts its own; all but the best are stopped at a look."""
    import ray
    from ray._private.state import actors as known_actors  # the public list needs a dashboard
    from ray.util import placement_group_table

    from raydistill.config.load import load_job
    from raydistill.config.sweep import Sweep
    from raydistill.sweep import check_sweep, run_sweep

    epsilons = [round(1e-4 * 1.4**n, 6) for n in range(20)]  # with each a teacher moves less than with the one before
    job = load_job(
        Sweep,
        Path("configs/sweep.yaml"),
        [
            *SMALL,
            "rollout.engine=transformers",
            "sweep.eta=[1]",
            f"sweep.over={{learner.adam_eps: {epsilons}}}",
            "learner.lr=5e-3",
            "sweep.scheduler={kind: asha, first_look: 1, factor: 4, students: {samples: 128, steps: 30}, prompts: 64}",
            "sweep.trials_at_once=1",
        ],
    )
    used = []

    def note(*_):
        alive = [actor for actor in known_actors().values() if actor["State"] != "DEAD"]
        groups = [group for group in placement_group_table().values() if group["state"] != "REMOVED"]
        workers = [one for one in _workers() if one.name().startswith("ray::") and "IDLE" not in one.name()]
        used.append((len(alive), len(groups), len(workers), sum(one.memory_info().rss for one in _workers()) / 2**20))

    note()  # Ray's own processes alone
    for part in (slice(0, 2), slice(0, 20)):
        trials, lineups = check_sweep(job, tmp_path / str(part.stop))
        run_sweep(job, trials[part], lineups, tmp_path / str(part.stop), resume=False)
        statuses = [trial.status() for trial in trials[part]]
        time.sleep(15)  # Ray keeps idle processes for a moment
        note()
    assert statuses.count("stopped") >= 10, statuses
    assert ray.is_initialized()
    print("actors, placement groups, processes, MiB before, after two trials and after twenty:", used)
    (*before, _), (_, _, _, memory_of_two), (*after, memory_of_twenty) = used
    assert before[:2] == [0, 0]
    assert after == before
    assert memory_of_twenty < memory_of_two + 200


def _workers():
    return [one for one in psutil.Process().children(recursive=True) if one.is_running()]
