"""A diagnosis in MLflow: one run, of kind `diagnosis`, with its config as params, its figures as metrics and its pages as artefacts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raydistill.config.diagnose import Diagnose
from raydistill.errors import InputError
from raydistill.files import write_whole
from raydistill.track.away import Attempts
from raydistill.track.entries import run_params
from raydistill.track.marker import COMPLETE, RUN_ID, known_run_id
from raydistill.track.secrets import public_yaml
from raydistill.track.tracker import Status, status_after

if TYPE_CHECKING:
    from raydistill.track.store import Store

_FILES = ("diagnosis.json", "diagnosis.html")


class DiagnosisRecord:
    """Records one diagnosis; does nothing where `track.uri` is None. Once it has started, a server that is away stops nothing."""

    def __init__(self, job: Diagnose, folder: Path) -> None:
        self._job, self._folder = job, folder
        self._attempt = Attempts(job.track.uri or "")
        self._store: Store | None = None
        self._run_id = ""

    def start(self, required: bool = True) -> None:
        """Open the run, or go on with the one that the folder knows of. Where MLflow cannot be used, raises InputError, naming track.uri,
        or warns if it is not `required`."""
        if self._job.track.uri is None:
            return
        from raydistill.track import store

        store.prepare()
        try:
            self._open(store.Store(self._job.track.uri, self._job.track.experiment))
        except store.failures() as error:
            if required:
                raise InputError(self._attempt.unusable(error)) from None
            self._attempt.warn(error)
            return
        write_whole(self._folder / RUN_ID, self._run_id)

    def _open(self, store: Store) -> None:
        known = known_run_id(self._folder)
        if known and store.reopen(known):
            self._run_id = known
        else:
            tags = {"raydistill.kind": "diagnosis", "raydistill.folder": str(self._folder)}
            self._run_id = store.open(self._job.name, tags, run_params(self._job))
        self._store = store

    def finish(self, found: Mapping[str, Any]) -> bool:
        """Send figures and pages, and close the run; whether MLflow has it all, which a file in the folder says then."""
        if self._store is None or not self._attempt(self._send, self._store, found):
            return False
        write_whole(self._folder / COMPLETE, json.dumps({"diagnosis": True}) + "\n")
        return True

    def end(self, status: Status) -> None:
        """Close the run of a diagnosis that did not get to its end."""
        if self._store is not None:
            self._attempt(self._store.close, self._run_id, status)

    def _send(self, store: Store, found: Mapping[str, Any]) -> None:
        from raydistill.track.store import metric

        when = int((self._folder / "diagnosis.json").stat().st_mtime * 1000)  # sent again, the same metrics change nothing
        store.log_metrics(self._run_id, [metric(name, value, 0, when) for name, value in diagnosis_metrics(found).items()])
        store.log_text(self._run_id, public_yaml(self._job), "config.yaml")
        for name in _FILES:
            store.log_path(self._run_id, self._folder / name)
        store.close(self._run_id, "FINISHED")


@contextmanager
def recorded(job: Diagnose, folder: Path) -> Iterator[DiagnosisRecord]:
    """The record of a diagnosis that is about to begin. Raises InputError, before anything was written, where MLflow cannot be used."""
    record = DiagnosisRecord(job, folder)
    record.start()
    try:
        yield record
    except BaseException as error:
        record.end(status_after(error))
        raise


def send_unsent(job: Diagnose, folder: Path) -> None:
    """Make MLflow's record of a finished diagnosis, or complete it; where MLflow is away, that is warned of."""
    if job.track.uri is None or (folder / COMPLETE).exists():
        return
    record = DiagnosisRecord(job, folder)
    record.start(required=False)
    record.finish(json.loads((folder / "diagnosis.json").read_text()))


def diagnosis_metrics(found: Mapping[str, Any]) -> dict[str, float]:
    """`value`, `low` and `high` of each score, trap and symptom that was measured, as `traps/gap/value`; of a student after distillation
    likewise below `after/`, and what has changed below `differences/`."""
    metrics = _figures(found.get("score", {}), "score")
    for kind in ("traps", "symptoms"):
        metrics |= _figures(found[kind], kind)
    if after := found.get("after"):
        metrics |= _figures({"student": after["score"]}, "after/score")
        metrics |= _figures(after["traps"], "after/traps") | _figures(after["symptoms"], "after/symptoms")
        metrics |= _figures(after["differences"], "differences")
    return metrics


def _figures(figures: Mapping[str, Any], prefix: str) -> dict[str, float]:
    metrics = {}
    for name, one in figures.items():
        if one.get("value") is not None:
            metrics[f"{prefix}/{name}/value"] = float(one["value"])
            if one["ci95"] is not None:
                metrics |= {f"{prefix}/{name}/{side}": float(bound) for side, bound in zip(("low", "high"), one["ci95"], strict=True)}
    return metrics
