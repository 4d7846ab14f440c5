"""A sweep in a real MLflow: what is nested where, the searches that docs/mlflow.md names, curves, the model registry."""

from __future__ import annotations

import json
import logging
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raydistill.config.track import TrackConfig
from raydistill.report.card import report_card
from raydistill.track import tracker as tracker_module
from raydistill.track.curves import curve_points
from raydistill.track.sweep_card import sweep_card
from raydistill.track.sweep_record import LONGEST_CARD, SweepRecord
from raydistill.track.tracker import Tracker
from tests.report.synthetic_facts import run_config, some_facts
from tests.track.small_sweep import SmallSweep

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient


def search(client: MlflowClient, near: str, terms: str, order: list[str] | None = None) -> list[MlflowRun]:
    """In the experiment of the run `near`."""
    return list(client.search_runs([client.get_run(near).info.experiment_id], filter_string=terms, order_by=order))


def students_of(sweep: str) -> str:
    """As docs/mlflow.md has it."""
    return f"tags.`raydistill.sweep` = '{sweep}' and tags.`raydistill.kind` = 'student'"


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((entry.step, entry.value) for entry in client.get_metric_history(run_id, name))


def recorded(uri: str, folder: Path, **changes: Any) -> tuple[SmallSweep, SweepRecord, str]:
    """A sweep whose trials are over."""
    sweep = SmallSweep(uri, folder, **changes)
    record, run_id = sweep.start()
    assert run_id is not None
    for trial in sweep.trials:
        trial.record(run_id)
    return sweep, record, run_id


def test_students_are_nested_in_trials_and_trials_in_the_sweep(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    other = run_config(1.0, (1,), track={"uri": uri})
    alone = Tracker(other.track)
    alone.start(other, tmp_path)
    alone.log_report(report_card(some_facts(1.0, (1,))), tmp_path)
    alone.end("FINISHED")

    sweep, record, run_id = recorded(uri, tmp_path / "sweep", over={"learner.lr": 0.002})
    record.end("FINISHED")

    found = client.get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("small", "FINISHED")
    assert found.data.tags["raydistill.kind"] == "sweep"
    assert found.data.params["knob.eta"] == "-1.0"

    trials = search(client, run_id, f"tags.`mlflow.parentRunId` = '{run_id}'", ["metrics.eta"])
    assert [trial.info.run_name for trial in trials] == ["small-eta-1", "small-eta+0", "small-eta+0.5"]
    assert [trial.data.metrics["eta"] for trial in trials] == [-1.0, 0.0, 0.5]
    assert {trial.info.status for trial in trials} == {"FINISHED"}
    for trial, planned in zip(trials, sweep.trials, strict=True):
        assert trial.data.tags["raydistill.kind"] == "calibration"
        assert trial.data.tags["raydistill.sweep"] == run_id
        assert trial.data.tags["raydistill.trial"] == planned.id
        nested = search(client, run_id, f"tags.`mlflow.parentRunId` = '{trial.info.run_id}'")
        assert sorted(one.data.tags["raydistill.kind"] for one in nested) == ["seed"] * 2 + ["student"] * 8
        assert {one.data.tags["raydistill.sweep"] for one in nested} == {run_id}

    # exactly the students of the sweep, in order of eta, ready to be compared
    students = search(client, run_id, students_of(run_id), ["metrics.eta"])
    assert len(students) == 3 * 8
    assert {student.info.run_name for student in students[:8]} == {
        f"{control}{method}-{seed} eta-1" for control in ("", "control-") for method in ("seqkd", "gkd") for seed in (1, 2)
    }
    assert [student.data.metrics["eta"] for student in students] == [-1.0] * 8 + [0.0] * 8 + [0.5] * 8
    for student in students:
        assert student.data.params.keys() == {"method", "seed", "eta", "teacher", "learner.lr"}
        assert student.data.params["eta"] == str(student.data.metrics["eta"])
        assert student.data.params["learner.lr"] == "0.002"
    calibrated = search(client, run_id, students_of(run_id) + " and params.teacher = 'calibrated' and metrics.eta > 0")
    assert sorted(student.info.run_name for student in calibrated) == [
        "gkd-1 eta+0.5",
        "gkd-2 eta+0.5",
        "seqkd-1 eta+0.5",
        "seqkd-2 eta+0.5",
    ]


def test_curves_and_files_are_the_sweeps_and_what_is_new_is_added(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    sweep = SmallSweep(uri, tmp_path)
    record, run_id = sweep.start()
    assert run_id is not None
    result = sweep.result
    unfinished = {**result, "trials": [*result["trials"][:2], result["trials"][2] | {"status": "failed", "report": None}]}
    record.log(unfinished, sweep.files())
    assert history(client, run_id, "curve/eta") == [(0, -1.0), (1000, 0.0)]
    record.log(result, sweep.files())
    assert record.end("FINISHED")
    again, known = sweep.start()
    assert known == run_id
    again.log(result, sweep.files())
    again.end("FINISHED")

    reports = [trial["report"] for trial in result["trials"]]
    assert history(client, run_id, "curve/eta") == [(0, -1.0), (1000, 0.0), (1500, 0.5)]
    for name, values in {
        "curve/seqkd student": [report["students"][0]["calibrated"]["sampled"]["mean"] for report in reports],
        "curve/gkd ratio": [report["students"][1]["ratio"] for report in reports],
        "curve/teacher": [report["teacher"]["calibrated"]["sampled"]["mean"] for report in reports],
        "curve/kl": [report["teacher"]["kl_per_sequence"] for report in reports],
    }.items():
        assert history(client, run_id, name) == list(zip((0, 1000, 1500), values, strict=True))
    assert {file.path for file in client.list_artifacts(run_id)} == {"sweep.json", "sweep.html", "config.yaml"}
    assert json.loads(Path(client.download_artifacts(run_id, "sweep.json")).read_text()) == result


def test_each_setting_of_the_other_fields_has_curves_of_its_own() -> None:
    report = report_card(some_facts(0.0, (1,)))
    report["students"][0]["ratio"] = None
    fields = ({"task.data.train": "/a/b.jsonl"}, {"task.data.train": "/a/c.jsonl"})
    trials = [{"overrides": {"knob.eta": eta, **over}, "eta": eta, "report": report} for over in fields for eta in (1.0, -0.25)]
    points = curve_points({"sweep": "s", "trials": trials})
    assert {name for name, _ in points} == {
        "curve/eta",
        *(
            f"curve task.data.train _a_{x}.jsonl/{name}"
            for x in "bc"
            for name in ("teacher", "kl", "seqkd student", "gkd student", "gkd ratio")
        ),
    }
    assert {step for _, step in points} == {0, 1250}
    assert points["curve/eta", 1250] == 1.0


def test_a_sweep_of_no_trials_that_are_done_has_no_curves() -> None:
    assert curve_points({"sweep": "s", "trials": []}) == {}
    assert curve_points({"sweep": "s", "trials": [{"overrides": {"knob.eta": 1.0}, "eta": 1.0, "report": None}]}) == {}


def test_the_card_tells_scores_claims_and_limits() -> None:
    report = report_card(some_facts(-1.0))
    report["students"][1]["ratio"] = report["students"][1]["ratio_ci95"] = None
    entry = {"id": "eta-1", "overrides": {"knob.eta": -1.0, "track.uri": "http://me:s3cret@host"}, "eta": -1.0, "report": report}
    card = sweep_card(entry, "knob")
    assert card.startswith("# Teacher of knob at eta −1\n")
    assert "`knob.eta`: -1.0" in card
    assert "seeds: 1, 2, 3;" in card
    student = report["students"][0]["calibrated"]["sampled"]
    low, high = student["ci95"]
    assert f"| seqkd student of this teacher | {student['mean']:.3f} [{low:.3f}, {high:.3f}] |" in card
    assert f"seqkd: students score ×{report['students'][0]['ratio']:.2f} [" in card
    assert "gkd: students score ×– [no interval]" in card
    assert "- Collapse: yes. Students of every method fall below" in card
    assert "- Fewer than 8 seeds" in card
    assert "s3cret" not in card
    assert len(card) < LONGEST_CARD


def test_the_card_of_a_teacher_without_students() -> None:
    report = report_card(some_facts(1.0, (1,)))
    report |= {"students": [], "baselines": {"base": None, "sft_gold": None}}
    card = sweep_card({"id": "eta+1", "overrides": {"knob.eta": 1.0}, "eta": 1.0, "report": report}, "knob")
    assert "| this teacher |" in card
    assert "No students were distilled in this run." in card
    assert "student of" not in card


def test_the_card_tells_a_schedule() -> None:
    entry = {"id": "a", "overrides": {"knob.eta": 1.0, "learner.lr": 0.004}, "eta": 1.0, "report": report_card(some_facts(1.0))}
    card = sweep_card(entry | {"schedule": [{"after": 5, "lr": 0.002}]}, "knob")
    assert "- `learner.lr`: 0.004\n- learner.lr 0.002 after 5 steps\n" in card


def test_a_teacher_is_registered_once(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    sweep, record, run_id = recorded(uri, tmp_path, name="registered")
    low, _, best = sweep.result["trials"]
    record.register(best, "registered", sweep_card(best, "registered"))
    record.end("FINISHED")
    resumed, _ = sweep.start()
    resumed.register(best, "registered", sweep_card(best, "registered"))
    resumed.register(low, "registered", "x" * (LONGEST_CARD + 1))
    resumed.end("FINISHED")

    second, first = client.search_model_versions("name = 'registered'", order_by=["version_number DESC"])
    trial = client.get_run(first.run_id)
    assert (int(first.version), int(second.version)) == (1, 2)
    assert trial.data.tags["raydistill.trial"] == "eta+0.5"
    assert first.source == f"{trial.info.artifact_uri}/teacher"
    assert first.description == sweep_card(best, "registered")
    student = best["report"]["students"][0]
    assert first.tags == {
        "raydistill.eta": "0.5",
        "raydistill.trial": "eta+0.5",
        "raydistill.sweep": run_id,
        "raydistill.student": f"{student['calibrated']['sampled']['mean']:.4f}",
        "raydistill.ratio": f"{student['ratio']:.4f}",
    }
    assert len(second.description) == LONGEST_CARD


def test_a_teacher_too_large_to_be_sent_is_registered_where_it_lies(
    client: MlflowClient, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracker_module, "LARGEST_MODEL", 1)
    sweep, record, _ = recorded(uri, tmp_path, name="large", etas=(1.0,))
    record.register(sweep.result["trials"][0], "large", "card")
    [version] = client.search_model_versions("name = 'large'")
    assert version.source == (tmp_path / "trials" / "eta+1" / "teacher").as_uri()


def test_a_trial_that_mlflow_does_not_know_is_not_registered(
    client: MlflowClient, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sweep = SmallSweep(uri, tmp_path)
    record, _ = sweep.start()
    record.register(sweep.result["trials"][0], "unknown", "card")
    assert "MLflow has no run of trial eta-1" in caplog.text
    assert client.search_model_versions("name = 'unknown'") == []


def test_a_trial_that_was_killed_is_closed_with_the_sweep(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    sweep = SmallSweep(uri, tmp_path)
    record, run_id = sweep.start()
    killed = sweep.trials[0]
    tracker = Tracker(killed.run.track)
    trial = tracker.start(killed.run, killed.folder, None, killed.link(run_id))
    assert trial is not None
    tracker.log_step(1, {"step": 0, "task_reward": 0.5, "seconds": {"learn": 0.1}})
    record.end("FAILED")
    assert client.get_run(str(run_id)).info.status == "FAILED"
    assert client.get_run(trial).info.status == "KILLED"
    assert {run.info.status for run in search(client, trial, f"tags.`mlflow.parentRunId` = '{trial}'")} == {"KILLED"}


def test_a_server_that_is_away_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        uri = f"http://me:s3cret@127.0.0.1:{one.getsockname()[1]}"
        sweep = SmallSweep(uri, tmp_path, etas=(1.0,))
        record, run_id = sweep.start()
        assert run_id is None
        assert sweep.trials[0].record(None) is None
        record.log(sweep.result, sweep.files())
        record.register(sweep.result["trials"][0], "away", "card")
        assert not record.end("FINISHED")
        assert record.run_id is None
    warnings = [line.getMessage() for line in caplog.records if line.name.startswith("raydistill")]
    assert len(warnings) == 2, "one of the driver, one of the trial"
    assert "s3cret" not in caplog.text
    assert not (tmp_path / "mlflow-run-id").exists()


def test_null_records_nothing(tmp_path: Path) -> None:
    record = SweepRecord(TrackConfig(uri=None))
    assert record.start("none", {}, tmp_path) is None
    record.log({"sweep": "none", "trials": []}, [])
    record.register({}, "none", "")
    record.end("FINISHED")
    assert list(tmp_path.iterdir()) == []


def test_all_of_it_on_a_server_with_a_password(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    from mlflow.tracking import MlflowClient

    caplog.set_level(logging.WARNING)
    uri = server.replace("://", "://me:s3cret@")
    sweep, record, run_id = recorded(uri, tmp_path, name="served", etas=(-0.5, 1.0), seeds=(1,))
    record.log(sweep.result, sweep.files())
    small, large = sweep.result["trials"]
    for _ in range(2):
        record.register(small, "served", sweep_card(small, "served"))
    assert not [line for line in caplog.records if line.name.startswith("raydistill")]
    client = MlflowClient(tracking_uri=server)
    [trial, _] = search(client, run_id, f"tags.`mlflow.parentRunId` = '{run_id}'", ["metrics.eta"])
    [version] = client.search_model_versions("name = 'served'")
    assert version.source == f"{trial.info.artifact_uri}/teacher"
    downloaded = client.download_artifacts(trial.info.run_id, "teacher", str(tmp_path))
    assert (Path(downloaded) / "config.json").read_text() == "{}"
    report = json.loads(Path(client.download_artifacts(trial.info.run_id, "report.json", str(tmp_path))).read_text())
    assert report == small["report"]
    assert len(search(client, run_id, students_of(run_id))) == 2 * 4

    monkeypatch.setattr(tracker_module, "LARGEST_MODEL", 1)
    alone = SmallSweep(uri, tmp_path / "large", name="served-large", etas=(1.0,), seeds=(1,))
    too_large, alone_id = alone.start()
    alone.trials[0].record(alone_id)
    too_large.register(large, "served-large", "card")
    assert "a teacher too large to be sent" in caplog.text
    assert client.search_model_versions("name = 'served-large'") == []
    for one in (too_large, record):
        one.end("FINISHED")

    config = Path(client.download_artifacts(run_id, "config.yaml", str(tmp_path))).read_text()
    assert "me:***@" in config
    recorded_texts = json.dumps([run.to_dictionary() for run in search(client, run_id, "")])
    folders = "".join(file.read_text() for file in tmp_path.rglob("*") if file.is_file())
    out = capfd.readouterr()
    for text in (recorded_texts, folders, caplog.text, out.out, out.err):
        assert "s3cret" not in text
