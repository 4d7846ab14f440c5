"""MLflow away at the start, in the middle or at the end of a run: all of it is sent later, once."""

from __future__ import annotations

import logging
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from raydistill.files import write_whole
from raydistill.track.late import send_unsent
from raydistill.track.marker import COMPLETE, RUN_ID
from raydistill.track.tracker import Tracker
from tests.track.server import free_port, serving
from tests.track.small_sweep import STEPS, SmallSweep, Trial, row

if TYPE_CHECKING:
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient


@contextmanager
def away(uri: str, table: str) -> Iterator[None]:
    """Make every use of a table fail, as if the server had gone away."""
    database = uri.removeprefix("sqlite:///")
    with sqlite3.connect(database) as connection:
        connection.execute(f"alter table {table} rename to hidden")
    try:
        yield
    finally:
        with sqlite3.connect(database) as connection:
            connection.execute(f"alter table hidden rename to {table}")


@pytest.fixture
def sweep_id() -> str:
    """Of a sweep whose own run is not looked at."""
    return uuid.uuid4().hex


def one_trial(uri: str, folder: Path, seeds: tuple[int, ...] = (1,)) -> Trial:
    [trial] = SmallSweep(uri, folder, etas=(1.0,), seeds=seeds).trials
    return trial


def nested(client: MlflowClient, run_id: str) -> list[MlflowRun]:
    return list(client.search_runs([client.get_run(run_id).info.experiment_id], filter_string=f"tags.`mlflow.parentRunId` = '{run_id}'"))


def all_of(client: MlflowClient, run_id: str) -> dict[str, object]:
    """A run, its metrics' histories, its files and what is nested in it."""
    run = client.get_run(run_id)
    return {
        "times": (run.info.start_time, run.info.end_time, run.info.status),
        "params": run.data.params,
        "tags": run.data.tags,
        "metrics": {
            name: [(one.step, one.value, one.timestamp) for one in client.get_metric_history(run_id, name)] for name in run.data.metrics
        },
        "files": sorted(file.path for file in client.list_artifacts(run_id)),
        "nested": {one.info.run_name: all_of(client, one.info.run_id) for one in nested(client, run_id)},
    }


def assert_whole(client: MlflowClient, run_id: str, trial: Trial) -> None:
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["students/seqkd/ratio"] == trial.report["students"][0]["ratio"]
    assert [one.step for one in sorted(client.get_metric_history(run_id, "task_reward"), key=lambda one: one.step)] == list(range(STEPS))
    assert len(client.get_metric_history(run_id, "eta")) == 1
    assert {file.path for file in client.list_artifacts(run_id)} >= {"report.json", "teacher", "metrics.jsonl"}
    students = [one for one in nested(client, run_id) if one.data.tags["raydistill.kind"] == "student"]
    assert len(students) == 4 * len(trial.run.seeds)
    assert {student.info.status for student in students} == {"FINISHED"}


def test_a_record_that_was_never_begun_is_made_once(
    client: MlflowClient, uri: str, sweep_id: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    trial = one_trial(uri, tmp_path)
    with away(uri, "runs"):
        assert trial.record(sweep_id) is None
        assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is False
    warnings = [line for line in caplog.records if line.name.startswith("raydistill")]
    assert len(warnings) == 2, "one of the run, one of what came later"
    assert not (trial.folder / RUN_ID).exists()

    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
    run_id = (trial.folder / RUN_ID).read_text()
    assert_whole(client, run_id, trial)
    first = all_of(client, run_id)
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
    assert all_of(client, run_id) == first


def test_what_is_sent_again_changes_nothing_but_the_time_of_the_end(client: MlflowClient, uri: str, sweep_id: str, tmp_path: Path) -> None:
    """The folder need not know that the record is complete, nor even where it is."""
    trial = one_trial(uri, tmp_path, (1, 2))
    run_id = trial.record(sweep_id)
    assert run_id is not None
    first = all_of(client, run_id)
    for forgotten in (COMPLETE, RUN_ID):
        (trial.folder / COMPLETE).unlink()
        (trial.folder / forgotten).unlink(missing_ok=True)
        assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
        assert (trial.folder / RUN_ID).read_text() == run_id
        again = all_of(client, run_id)
        for name in ("params", "tags", "metrics", "files"):
            assert again[name] == first[name]
        assert again["nested"].keys() == first["nested"].keys()  # type: ignore[attr-defined]
        for name, student in first["nested"].items():  # type: ignore[attr-defined]
            assert again["nested"][name]["metrics"] == student["metrics"]  # type: ignore[index]


@pytest.mark.parametrize("table", ["metrics", "runs"])
def test_a_record_that_broke_off_is_completed(client: MlflowClient, uri: str, sweep_id: str, tmp_path: Path, table: str) -> None:
    trial = one_trial(uri, tmp_path, (1, 2))
    trial.begin()
    tracker = Tracker(trial.run.track)
    run_id = tracker.start(trial.run, trial.folder, None, trial.link(sweep_id))
    assert run_id is not None
    write_whole(trial.folder / RUN_ID, run_id)
    tracker.log_step(1, row(0, 0.1))
    with away(uri, table):
        trial.complete()
        tracker.log_report(trial.report, trial.folder)
        assert tracker.end("FINISHED") is False
    assert not (trial.folder / COMPLETE).exists()
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
    assert_whole(client, run_id, trial)


def test_a_trial_is_nested_later_where_its_sweep_was_recorded_later(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    sweep = SmallSweep(uri, tmp_path, etas=(1.0,), seeds=(1, 2))
    [trial] = sweep.trials
    with away(uri, "runs"):
        record, unknown = sweep.start()
    assert unknown is None
    run_id = trial.record(None)
    assert run_id is not None
    assert "mlflow.parentRunId" not in client.get_run(run_id).data.tags

    record.log(sweep.result, sweep.files())
    found = record.run_id
    assert found is not None
    assert (tmp_path / RUN_ID).read_text() == found
    assert send_unsent(trial.run, trial.folder, trial.link(found)) is True
    assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == found
    tagged = nested(client, run_id)
    assert len(tagged) == 2 + 8
    assert {one.data.tags["raydistill.sweep"] for one in tagged} == {found}
    assert_whole(client, run_id, trial)
    record.register(trial.entry, "later", "card")
    assert len(client.search_model_versions("name = 'later'")) == 1


def test_a_run_without_a_report_is_sent_as_far_as_it_came(client: MlflowClient, uri: str, sweep_id: str, tmp_path: Path) -> None:
    trial = one_trial(uri, tmp_path)
    trial.begin()
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id), "KILLED") is True
    run_id = (trial.folder / RUN_ID).read_text()
    assert client.get_run(run_id).info.status == "KILLED"
    assert len(client.get_metric_history(run_id, "task_reward")) == STEPS
    first = all_of(client, run_id)
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id), "KILLED") is True
    assert all_of(client, run_id) == first

    # a later attempt that came to its end
    with away(uri, "runs"):
        assert trial.record(sweep_id) is None
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
    assert_whole(client, run_id, trial)


def test_a_run_that_is_in_no_sweep_is_sent_too(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    trial = one_trial(uri, tmp_path)
    trial.begin()
    trial.complete()
    assert send_unsent(trial.run, trial.folder) is True
    run_id = (trial.folder / RUN_ID).read_text()
    assert_whole(client, run_id, trial)
    assert "mlflow.parentRunId" not in client.get_run(run_id).data.tags


def test_a_run_that_was_never_begun_or_is_not_recorded_is_left_alone(uri: str, tmp_path: Path) -> None:
    trial = one_trial(uri, tmp_path)
    assert send_unsent(trial.run, trial.folder, trial.link(None)) is True
    assert not trial.folder.exists()
    unrecorded = trial.run.model_copy(update={"track": trial.run.track.model_copy(update={"uri": None})})
    trial.begin()
    assert send_unsent(unrecorded, trial.folder, trial.link(None)) is True
    assert not (trial.folder / RUN_ID).exists()


def test_a_server_dies_in_the_middle_and_comes_back(
    sweep_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from mlflow.tracking import MlflowClient

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    caplog.set_level(logging.WARNING)
    port = free_port()
    trial = one_trial(f"http://me:s3cret@127.0.0.1:{port}", tmp_path / "sweep")
    trial.begin()
    tracker = Tracker(trial.run.track)
    with serving(tmp_path, port):
        run_id = tracker.start(trial.run, trial.folder, None, trial.link(sweep_id), required=False)
        assert run_id is not None
        write_whole(trial.folder / RUN_ID, run_id)
        tracker.log_step(1, row(0, 0.1))
    trial.complete()
    tracker.log_report(trial.report, trial.folder)
    tracker.end("FINISHED")
    assert sum("the run goes on" in line.getMessage() for line in caplog.records) == 1
    assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is False
    with serving(tmp_path, port) as address:
        client = MlflowClient(tracking_uri=address)
        assert client.get_run(run_id).info.status == "RUNNING"
        assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
        assert_whole(client, run_id, trial)
        first = all_of(client, run_id)
        assert send_unsent(trial.run, trial.folder, trial.link(sweep_id)) is True
        assert all_of(client, run_id) == first
    assert "s3cret" not in caplog.text
