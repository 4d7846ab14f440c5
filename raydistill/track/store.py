"""The one place that talks to MLflow. Its exceptions (`failures()`) pass through: what they mean is for the caller to say."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from raydistill.environment import set_driver_environment

if TYPE_CHECKING:
    from mlflow.entities import Metric

METRICS_A_BATCH = 1000
PARAMS_A_BATCH = 100
"""MLflow takes no more at once."""

_DEFAULTS = {
    # otherwise it goes on for minutes before it says that a server is away
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    # it prints the tracking URI, password and all, at the end of every run
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def failures() -> tuple[type[Exception], ...]:
    """What MLflow raises where a server, a database or a disk fails, or the driver of a database is not installed."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError, sqlite3.Error


def prepare() -> None:
    """Telemetry off, short timeouts and no chatter, unless the user has set them; to be called before MLflow is imported."""
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it tells of every retry
    set_driver_environment()
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)


class Store:
    """Runs of one experiment at one tracking URI; the experiment is made if it is missing."""

    def __init__(self, uri: str, experiment: str) -> None:
        from mlflow.tracking import MlflowClient

        _knock(uri)
        self._client = MlflowClient(tracking_uri=uri)
        self._experiment = self._find_or_make(experiment, _beside_database(uri))

    def _find_or_make(self, name: str, artefacts: str | None) -> str:
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        try:
            return str(self._client.create_experiment(name, artefacts))
        except MlflowException as error:
            made_meanwhile = self._client.get_experiment_by_name(name)
            if made_meanwhile is None:
                raise error
            return str(made_meanwhile.experiment_id)

    def open(self, name: str, tags: Mapping[str, str], params: Mapping[str, str]) -> str:
        """A new run; its id."""
        run_id = str(self._client.create_run(self._experiment, run_name=name, tags=dict(tags)).info.run_id)
        self.log_params(run_id, params)
        return run_id

    def reopen(self, run_id: str) -> bool:
        """Set a run to running again; False where there is no such run."""
        from mlflow.exceptions import MlflowException

        try:
            run = self._client.get_run(run_id)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise
        if run.info.lifecycle_stage != "active":
            return False
        self._experiment = str(run.info.experiment_id)  # where its nested runs are, whatever the config says by now
        self._client.update_run(run_id, status="RUNNING")
        return True

    def child(self, parent: str, name: str, kind: str, params: Mapping[str, str], tags: Mapping[str, str]) -> str:
        """The id of the run of this name nested under `parent`: made if it is missing, set to running again if it is there."""
        marks = _marks(parent, name, kind)
        found = self.find(marks)
        if found is None:
            return self.open(name, {**tags, **marks}, params)
        self._client.update_run(found, status="RUNNING")
        self._tag(found, tags)
        self.log_params(found, params)
        return found

    def nest(self, run_id: str, parent: str, name: str, kind: str, tags: Mapping[str, str]) -> None:
        """Make a run that is there what `child` would have made."""
        self._tag(run_id, {**tags, **_marks(parent, name, kind)})

    def find(self, tags: Mapping[str, str]) -> str | None:
        """The newest run with these tags."""
        return next(iter(self._search(" and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items()))), None)

    def _tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        self._client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])

    def steps(self, run_id: str, metric: str) -> set[int]:
        """Steps for which a run has the metric."""
        return {entry.step for entry in self._client.get_metric_history(run_id, metric)}

    def log_params(self, run_id: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        entries = [Param(name, value) for name, value in params.items()]
        for start in range(0, len(entries), PARAMS_A_BATCH):
            self._client.log_batch(run_id, params=entries[start : start + PARAMS_A_BATCH])

    def log_metrics(self, run_id: str, entries: Iterable[Metric]) -> None:
        """Sent again, the same entries change nothing."""
        entries = list(entries)
        for start in range(0, len(entries), METRICS_A_BATCH):
            self._client.log_batch(run_id, metrics=entries[start : start + METRICS_A_BATCH])

    def log_new_metrics(self, run_id: str, values: Mapping[tuple[str, int], float]) -> None:
        """Values by name and step, without those of which the run has that step already."""
        known = {name: self.steps(run_id, name) for name, _ in values}
        self.log_metrics(run_id, [metric(name, value, step) for (name, step), value in values.items() if step not in known[name]])

    def log_text(self, run_id: str, text: str, name: str) -> None:
        self._client.log_text(run_id, text, name)

    def log_path(self, run_id: str, path: Path) -> None:
        """A file, or a folder under its own name."""
        if path.is_dir():
            self._client.log_artifacts(run_id, str(path), path.name)
        else:
            self._client.log_artifact(run_id, str(path))

    def close(self, run_id: str, status: str) -> None:
        self._client.set_terminated(run_id, status)

    def close_tree(self, run_id: str, status: str) -> None:
        """Close a run and those nested in it that are still open, whichever process opened them."""
        for child in self.open_children(run_id):
            self.close(child, status)
        self.close(run_id, status)

    def open_children(self, run_id: str) -> list[str]:
        return self._search(f"tags.`mlflow.parentRunId` = '{run_id}' and attributes.status = 'RUNNING'")

    def artefact(self, run_id: str, name: str) -> str | None:
        """Where a file or folder among a run's artefacts lies; None where there is none of that name."""
        if name not in (found.path for found in self._client.list_artifacts(run_id)):
            return None
        return f"{self._client.get_run(run_id).info.artifact_uri}/{name}"

    def register(self, model: str, run_id: str, source: str, description: str, tags: Mapping[str, str]) -> bool:
        """See that a registered model, made if it is missing, has a version of this run; False where MLflow takes no such source."""
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(model)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if any(version.run_id == run_id for version in self._client.search_model_versions(f"name = '{model}'")):
            return True
        try:
            self._client.create_model_version(model, source, run_id, dict(tags), description=description, await_creation_for=0)
        except MlflowException as error:
            if error.error_code == "INVALID_PARAMETER_VALUE":
                return False
            raise
        return True

    def _search(self, terms: str) -> list[str]:
        return [str(run.info.run_id) for run in self._client.search_runs([self._experiment], filter_string=terms)]


def _marks(parent: str, name: str, kind: str) -> dict[str, str]:
    """By which a nested run is known."""
    return {"mlflow.parentRunId": parent, "raydistill.kind": kind, "raydistill.child": name}


def metric(name: str, value: float, step: int, timestamp: int | None = None) -> Metric:
    """`timestamp` in ms since 1970, now if missing."""
    from mlflow.entities import Metric

    return Metric(name, value, int(time.time() * 1000) if timestamp is None else timestamp, step)


def _knock(uri: str) -> None:
    """Raises at once for a database that is away or a file that cannot be one; MLflow would try for a minute and a half."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(uri)
    except ArgumentError:  # not of this form: MLflow says what it knows
        return
    if url.drivername.startswith("sqlite") and url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(url.database)) as connection:
            connection.execute("pragma schema_version")
    elif url.host and url.port and not url.drivername.startswith("http"):
        socket.create_connection((url.host, url.port), timeout=10).close()


def _beside_database(uri: str) -> str | None:
    """Artefacts of an SQLite file lie beside it, wherever the run was started; None leaves the place to the server."""
    from sqlalchemy.engine import make_url

    if not uri.startswith("sqlite"):
        return None
    database = make_url(uri).database
    return str(Path(database).resolve().parent / "mlruns") if database else None
