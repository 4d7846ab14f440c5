"""What arrives in a real MLflow database: nesting, curves, resumption, and what happens while MLflow is away."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raydistill.config.run import Run
from raydistill.config.track import TrackConfig
from raydistill.errors import InputError
from raydistill.report.card import report_card
from raydistill.report.scores import Json
from raydistill.track import tracker as module
from raydistill.track.marker import COMPLETE
from raydistill.track.tracker import Tracker
from tests.report.synthetic_facts import run_config, some_facts
from tests.track.server import free_port, serving

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient


def row(step: int, reward: float = 0.5) -> Json:
    return {"step": step, "task_reward": reward, "cal_reward": None, "kl_anchor": 0.1 * step, "seconds": {"rollout": 0.3, "learn": 0.1}}


def write_rows(folder: Path, rows: list[Json]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in rows), encoding="utf-8")


def tracked(uri: str | None, seeds: tuple[int, ...], **track: Any) -> tuple[Tracker, Run]:
    run = run_config(1.0, seeds, track={"uri": uri, **track})
    return Tracker(run.track), run


def nested(client: MlflowClient, run_id: str, kind: str) -> dict[str, MlflowRun]:
    experiment = client.get_run(run_id).info.experiment_id
    terms = f"tags.`mlflow.parentRunId` = '{run_id}' and tags.`raydistill.kind` = '{kind}'"
    return {found.info.run_name: found for found in client.search_runs([experiment], filter_string=terms)}


def history(client: MlflowClient, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((entry.step, entry.value) for entry in client.get_metric_history(run_id, name))


def test_one_seed_is_one_run_with_its_students_nested(client: MlflowClient, uri: str, folder: Path) -> None:
    tracker, run = tracked(uri, (4,))
    run_id = tracker.start(run, folder)
    assert run_id is not None
    assert client.get_run(run_id).info.status == "RUNNING"
    rows = [row(step, reward=0.5 + step / 10) for step in range(3)]
    write_rows(folder, rows)
    for line in rows:
        tracker.log_step(4, line)
    report = report_card(some_facts(1.0, (4,)))
    tracker.log_report(report, folder)
    tracker.end("FINISHED")

    found = client.get_run(run_id)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == run.name
    assert found.data.tags["raydistill.kind"] == "calibration"
    assert found.data.params["knob.eta"] == "1.0"
    assert found.data.params["students.methods.1.method"] == "gkd"
    assert history(client, run_id, "task_reward") == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert history(client, run_id, "seconds/rollout") == [(0, 0.3), (1, 0.3), (2, 0.3)]
    assert found.data.metrics["teacher/calibrated/sampled"] == report["teacher"]["calibrated"]["sampled"]["mean"]
    assert found.data.metrics["students/seqkd/ratio"] == report["students"][0]["ratio"]
    assert found.data.metrics["claims/distillable"] == float(report["claims"]["distillable"])
    assert nested(client, run_id, "seed") == {}

    students = nested(client, run_id, "student")
    assert set(students) == {"seqkd-4", "gkd-4", "control-seqkd-4", "control-gkd-4"}
    per_seed = report["students"][0]["per_seed"][0]
    calibrated, control = students["seqkd-4"], students["control-seqkd-4"]
    assert calibrated.data.params == {"method": "seqkd", "seed": "4", "eta": "1.0", "teacher": "calibrated"}
    assert control.data.params == {"method": "seqkd", "seed": "4", "eta": "1.0", "teacher": "original"}
    assert calibrated.data.metrics == {
        "eta": 1.0,
        "sampled": per_seed["calibrated"],
        "greedy": per_seed["calibrated_greedy"],
        "ratio": pytest.approx(per_seed["calibrated"] / per_seed["control"]),
    }
    assert control.data.metrics == {"eta": 1.0, "sampled": per_seed["control"], "greedy": per_seed["control_greedy"]}
    assert {student.info.status for student in students.values()} == {"FINISHED"}

    files = {file.path for file in client.list_artifacts(run_id)} | {file.path for file in client.list_artifacts(run_id, "teacher")}
    assert files == {"report.html", "report.json", "config.yaml", "metrics.jsonl", "teacher", "teacher/model.safetensors"}
    # beside the database, wherever the run was started
    assert Path(uri.removeprefix("sqlite:///")).parent in Path(found.info.artifact_uri.removeprefix("file://")).parents


def test_seeds_are_nested_and_their_mean_is_the_runs(client: MlflowClient, uri: str, folder: Path) -> None:
    tracker, run = tracked(uri, (1, 2))
    run_id = tracker.start(run, folder)
    assert run_id is not None
    rows = {1: [row(0, 0.2), row(1, 0.4)], 2: [row(0, 0.6)]}
    write_rows(folder, rows[1])
    write_rows(folder / "seeds" / "2", rows[2])
    for seed, lines in rows.items():
        for line in lines:
            tracker.log_step(seed, line)
    tracker.log_report(report_card(some_facts(1.0, (1, 2))), folder)
    tracker.end("FINISHED")

    seeds = nested(client, run_id, "seed")
    assert set(seeds) == {f"{run.name}-seed-1", f"{run.name}-seed-2"}
    first = seeds[f"{run.name}-seed-1"]
    assert first.data.params == {"seed": "1", "eta": "1.0"}
    assert first.info.status == "FINISHED"
    assert history(client, first.info.run_id, "task_reward") == [(0, 0.2), (1, 0.4)]
    assert history(client, run_id, "task_reward") == [(0, 0.4), (1, 0.4)], "the mean of the seeds that got to a step"


def test_a_resumed_run_goes_on_without_gaps_or_repetitions(client: MlflowClient, uri: str, folder: Path) -> None:
    killed, run = tracked(uri, (1, 2))
    run_id = killed.start(run, folder)
    assert run_id is not None
    for step in range(3):
        killed.log_step(1, row(step))  # steps 1 and 2 wait to be sent and are lost with the process

    resumed = Tracker(run.track)
    assert resumed.start(run, folder, run_id) == run_id
    for step in range(2, 5):
        resumed.log_step(1, row(step))
    write_rows(folder, [row(step) for step in range(5)])
    resumed.log_report(report_card(some_facts(1.0, (1, 2))), folder)
    resumed.end("FINISHED")

    seeds = nested(client, run_id, "seed")
    assert [step for step, _ in history(client, seeds[f"{run.name}-seed-1"].info.run_id, "task_reward")] == [0, 1, 2, 3, 4]
    assert len(nested(client, run_id, "student")) == 8
    assert client.get_run(run_id).info.status == "FINISHED"


def test_the_folder_of_a_run_that_mlflow_has_all_of_says_so(client: MlflowClient, uri: str, folder: Path) -> None:
    tracker, run = tracked(uri, (1,))
    tracker.start(run, folder)
    write_rows(folder, [row(0), row(1)])
    assert tracker.end("FAILED") is False, "steps that were never logged"
    assert not (folder / COMPLETE).exists()
    again = Tracker(run.track)
    again.start(run, folder)
    again.log_report(report_card(some_facts(1.0, (1,))), folder)
    assert again.end("FINISHED") is True
    assert json.loads((folder / COMPLETE).read_text()) == {"sweep": None, "steps": 2, "report": True}


def test_reporting_twice_makes_no_second_students(client: MlflowClient, uri: str, folder: Path) -> None:
    report = report_card(some_facts(1.0, (1, 2)))
    first, run = tracked(uri, (1, 2))
    run_id = first.start(run, folder)
    assert run_id is not None
    first.log_report(report, folder)
    second = Tracker(run.track)
    second.start(run, folder, run_id)
    second.log_report(report, folder)
    second.end("FINISHED")
    assert len(nested(client, run_id, "student")) == 8


def test_a_run_that_was_deleted_is_replaced(client: MlflowClient, uri: str, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker, run = tracked(uri, (1,))
    gone = tracker.start(run, folder)
    assert gone is not None
    client.delete_run(gone)
    for unknown in (gone, "0" * 32):
        fresh = Tracker(run.track).start(run, folder, unknown)
        assert fresh not in (None, unknown)
        assert f"no run {unknown} any more" in caplog.text


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_ends_as_it_ended_with_what_is_nested_in_it(client: MlflowClient, uri: str, folder: Path, status: Any) -> None:
    tracker, run = tracked(uri, (1, 2))
    run_id = tracker.start(run, folder)
    assert run_id is not None
    tracker.log_step(1, row(0))
    tracker.end(status)
    assert client.get_run(run_id).info.status == status
    assert [found.info.status for found in nested(client, run_id, "seed").values()] == [status]


def test_a_large_teacher_stays_in_the_folder(client: MlflowClient, uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST_MODEL", 5)
    tracker, run = tracked(uri, (1,))
    run_id = tracker.start(run, folder)
    assert run_id is not None
    tracker.log_report(report_card(some_facts(1.0, (1,))), folder)
    tracker.end("FINISHED")
    assert "teacher" not in {file.path for file in client.list_artifacts(run_id)}


def test_logging_a_step_is_cheap(client: MlflowClient, uri: str, folder: Path) -> None:
    tracker, run = tracked(uri, (1,))
    tracker.start(run, folder)
    tracker.log_step(1, row(0))
    started = time.perf_counter()
    for step in range(1, 201):
        tracker.log_step(1, row(step))
    assert (time.perf_counter() - started) / 200 < 0.02
    tracker.end("FINISHED")


# --- MLflow away


def _hide_tables(database: Path, hide: bool) -> None:
    """Make every write of a metric fail, or work again, as if the server had gone away and come back."""
    old, new = ("metrics", "metrics_away") if hide else ("metrics_away", "metrics")
    with sqlite3.connect(database) as connection:
        connection.execute(f"alter table {old} rename to {new}")


def test_mlflow_may_go_away_and_come_back(
    client: MlflowClient, uri: str, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.0)
    database = Path(uri.removeprefix("sqlite:///"))
    tracker, run = tracked(uri, (1,))
    run_id = tracker.start(run, folder)
    assert run_id is not None
    tracker.log_step(1, row(0))
    _hide_tables(database, hide=True)
    try:
        for step in range(1, 4):
            tracker._next_flush = 0.0  # every step is a new attempt
            tracker.log_step(1, row(step))
        warnings = [record for record in caplog.records if record.name.startswith("raydistill.track")]
        assert len(warnings) == 1
        assert "the run goes on" in warnings[0].getMessage()
    finally:
        _hide_tables(database, hide=False)
    tracker.end("FINISHED")
    assert [step for step, _ in history(client, run_id, "task_reward")] == [0, 1, 2, 3]


def test_a_failed_server_is_left_alone_for_a_while(client: MlflowClient, uri: str, folder: Path) -> None:
    database = Path(uri.removeprefix("sqlite:///"))
    tracker, run = tracked(uri, (1,))
    tracker.start(run, folder)
    _hide_tables(database, hide=True)
    try:
        tracker.log_step(1, row(0))
        assert tracker._next_flush - time.monotonic() > module.FLUSH_SECONDS + 1
    finally:
        _hide_tables(database, hide=False)
    tracker.end("FINISHED")


def _not_a_database(folder: Path) -> str:
    (folder / "notes.txt").write_text("not a database, and long enough to look at " * 20, encoding="utf-8")
    return f"sqlite:///{folder / 'notes.txt'}"


def test_an_unusable_uri_is_an_input_error_of_one_line(tmp_path: Path) -> None:
    port = free_port()
    uris = {
        f"http://me:s3cret@127.0.0.1:{port}": "Connection refused",
        f"postgresql://me:s3cret@127.0.0.1:{port}/db": "Connection refused",
        "gopher://me:s3cret@host": "Supported URI schemes",
        _not_a_database(tmp_path): "not a database",
        f"sqlite:///{tmp_path / 'notes.txt' / 'mlflow.db'}": "notes.txt",
        "sqlite:////proc/mlflow.db": "unable to open",
    }
    for uri, why in uris.items():
        tracker, run = tracked(uri, (1,))
        started = time.monotonic()
        with pytest.raises(InputError, match=r"^track\.uri ") as caught:
            tracker.start(run, tmp_path)
        message = str(caught.value)
        assert why in message
        assert "track.uri=null" in message
        assert "\n" not in message
        assert "s3cret" not in message
        assert time.monotonic() - started < 60, uri


def test_a_run_that_can_do_without_mlflow_is_warned_once_and_goes_on(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tracker, run = tracked(_not_a_database(tmp_path), (1,))
    assert tracker.start(run, folder, required=False) is None
    tracker.log_step(1, row(0))
    tracker.log_report(report_card(some_facts(1.0, (1,))), folder)
    assert tracker.end("FINISHED") is False
    [warning] = [record.getMessage() for record in caplog.records if record.name.startswith("raydistill.track")]
    assert "the run goes on" in warning
    assert not (folder / COMPLETE).exists()


def test_null_records_nothing_and_loads_nothing_heavy(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from raydistill.config.track import TrackConfig
from raydistill.track.tracker import Tracker
tracker = Tracker(TrackConfig(uri=None))
assert tracker.start(None, Path("nowhere")) is None
tracker.log_step(1, {"step": 0})
tracker.log_report({}, Path("nowhere"))
tracker.end("FINISHED")
heavy = {"mlflow", "sqlalchemy", "matplotlib", "scipy", "torch", "ray"} & set(sys.modules)
assert not heavy, heavy
"""
    environment = os.environ | {"PYTHONPATH": os.getcwd()}
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path, env=environment)
    assert list(tmp_path.iterdir()) == []


def test_telemetry_is_off(client: MlflowClient) -> None:
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
    assert os.environ["DO_NOT_TRACK"] == "1"


@pytest.mark.slow
def test_a_server_serves_until_it_is_killed_and_that_does_not_stop_a_run(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with serving(tmp_path, free_port()) as uri:
        tracker, run = tracked(uri, (1,))
        tracker.start(run, folder)
        tracker.log_step(1, row(0))
        done = Tracker(run.track)
        done.start(run, folder)
        done.log_report(report_card(some_facts(1.0, (1,))), folder)
        done.end("FINISHED")
        assert not caplog.records
    caplog.set_level(logging.WARNING)
    started = time.monotonic()
    tracker.log_step(1, row(1))
    tracker.log_report(report_card(some_facts(1.0, (1,))), folder)
    tracker.end("FINISHED")
    assert time.monotonic() - started < 90
    assert sum("the run goes on" in record.getMessage() for record in caplog.records) == 1
    assert capfd.readouterr().out == ""


def test_the_default_is_a_database_in_the_working_directory() -> None:
    assert TrackConfig().uri == "sqlite:///mlflow.db"
