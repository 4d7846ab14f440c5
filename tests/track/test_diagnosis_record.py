"""What arrives in a real MLflow database of a diagnosis, and what happens where MLflow is away."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from raydistill.config.diagnose import Diagnose
from raydistill.config.load import load_job
from raydistill.errors import InputError
from raydistill.track.diagnosis_record import DiagnosisRecord, diagnosis_metrics, recorded, send_unsent
from raydistill.track.marker import COMPLETE, RUN_ID

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


def figure(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "ci95": None if low is None else [low, high], "unit": "u", "n": 2}


FOUND = {
    "score": {"teacher": figure(0.9, 0.8, 1.0), "student": figure(0.4)},
    "traps": {
        "tail_noise": {"not measured": "the tokenizers differ"},
        "gap": figure(0.3, 0.2, 0.4),
        "off_policy_instability": figure(None),
    },
    "symptoms": {"overconfident_hallucination": figure(0.1, 0.05, 0.2)},
}
AFTER = {
    "score": figure(0.7),
    "traps": {"gap": figure(0.1)},
    "symptoms": {},
    "differences": {"score": figure(0.3, 0.2, 0.4)},
}
SENT = {
    "score/teacher/value": 0.9,
    "score/teacher/low": 0.8,
    "score/teacher/high": 1.0,
    "score/student/value": 0.4,
    "traps/gap/value": 0.3,
    "traps/gap/low": 0.2,
    "traps/gap/high": 0.4,
    "symptoms/overconfident_hallucination/value": 0.1,
    "symptoms/overconfident_hallucination/low": 0.05,
    "symptoms/overconfident_hallucination/high": 0.2,
}


def diagnosed(uri: str, folder: Path) -> Diagnose:
    """A finished diagnosis."""
    folder.mkdir(exist_ok=True)
    (folder / "diagnosis.json").write_text(json.dumps(FOUND))
    (folder / "diagnosis.html").write_text("<p>a page</p>")
    return load_job(Diagnose, Path("configs/diagnose.yaml"), [f"track.uri={uri}", "seed=7"])


def test_what_was_measured_has_a_value_and_bounds() -> None:
    assert diagnosis_metrics(FOUND) == SENT
    assert diagnosis_metrics(FOUND | {"after": AFTER}) == SENT | {
        "after/score/student/value": 0.7,
        "after/traps/gap/value": 0.1,
        "differences/score/value": 0.3,
        "differences/score/low": 0.2,
        "differences/score/high": 0.4,
    }


def test_a_diagnosis_is_one_run_with_params_metrics_and_artefacts(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    job = diagnosed(uri, tmp_path)
    with recorded(job, tmp_path) as record:
        run_id = (tmp_path / RUN_ID).read_text()
        assert client.get_run(run_id).info.status == "RUNNING"
        assert record.finish(FOUND)
    run = client.get_run(run_id)
    assert (run.info.status, run.info.run_name) == ("FINISHED", job.name)
    assert run.data.tags["raydistill.kind"] == "diagnosis"
    wanted = {"teacher.model": "demo:teacher", "student.model": "demo:student", "task.kind": "arithmetic", "seed": "7"}
    assert wanted.items() <= run.data.params.items()
    assert run.data.metrics == SENT
    assert {file.path for file in client.list_artifacts(run_id)} == {"config.yaml", "diagnosis.html", "diagnosis.json"}
    assert (tmp_path / COMPLETE).exists()


def test_a_resumed_one_goes_on_with_its_run(client: MlflowClient, uri: str, tmp_path: Path) -> None:
    job = diagnosed(uri, tmp_path)
    with pytest.raises(KeyError), recorded(job, tmp_path):
        raise KeyError
    run_id = (tmp_path / RUN_ID).read_text()
    assert client.get_run(run_id).info.status == "FAILED"
    with pytest.raises(KeyboardInterrupt), recorded(job, tmp_path):
        raise KeyboardInterrupt
    assert client.get_run(run_id).info.status == "KILLED"
    with recorded(job, tmp_path) as record:
        record.finish(FOUND)
    assert (tmp_path / RUN_ID).read_text() == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


def test_mlflow_away_at_the_start_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no database")
    job = diagnosed(f"sqlite:///{tmp_path / 'file'}", tmp_path / "run")
    with pytest.raises(InputError, match=r"track\.uri .*track\.uri=null"), recorded(job, tmp_path / "run"):
        pass
    assert not (tmp_path / "run" / RUN_ID).exists()


def test_mlflow_away_at_the_end_is_warned_of_and_told_later_once(
    client: MlflowClient, uri: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "file"
    broken.write_text("no database")
    gone = diagnosed(f"sqlite:///{broken}", tmp_path / "run")
    with caplog.at_level(logging.WARNING):
        send_unsent(gone, tmp_path / "run")
    assert "track.uri" in caplog.text
    assert not (tmp_path / "run" / COMPLETE).exists()

    job = diagnosed(uri, tmp_path / "run")
    send_unsent(job, tmp_path / "run")
    run_id = (tmp_path / "run" / RUN_ID).read_text()
    assert client.get_run(run_id).data.metrics == SENT
    send_unsent(job, tmp_path / "run")
    assert [len(client.get_metric_history(run_id, name)) for name in SENT] == [1] * len(SENT)
    (tmp_path / "run" / COMPLETE).unlink()
    send_unsent(job, tmp_path / "run")  # sent twice, it stays as it is
    assert [len(client.get_metric_history(run_id, name)) for name in SENT] == [1] * len(SENT)


def test_a_null_uri_records_nothing(tmp_path: Path) -> None:
    job = diagnosed("null", tmp_path)
    record = DiagnosisRecord(job, tmp_path)
    record.start()
    assert not record.finish(FOUND)
    assert not (tmp_path / RUN_ID).exists()
