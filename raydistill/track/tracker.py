"""MLflow as the main job sees it: a record kept beside the run, never a reason for the run to fail.

One run a calibration, tagged `raydistill.kind` = calibration, with its config as params and the report as metrics and artefacts;
and one a distillation, of kind distillation.
Nested in it are a run for each student (kind student) and, where there are several seeds, one for each seed (kind seed), so
that the seeds' curves lie over one another under the same names. Their mean over seeds goes to the run itself at the end.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.config.track import TrackConfig
from raydistill.errors import InputError
from raydistill.runfolder import RunFolder
from raydistill.track.entries import mean_over_seeds, report_metrics, run_params, step_metrics, student_entries
from raydistill.track.secrets import masked_text, masked_uri, public_yaml

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from raydistill.track.store import Store

Status = Literal["FINISHED", "FAILED", "KILLED"]

FLUSH_SECONDS = 5.0
"""Steps are sent together at most this often."""
RETRY_SECONDS = 60.0
"""A server that has failed is left alone for this long, and for ten times as long as its failure took."""
LARGEST_MODEL = 200 * 2**20
"""Bytes; a larger model stays in the run's folder only."""
_EVERY_STEP_HAS = "seconds/learn"

logger = logging.getLogger(__name__)


class Tracker:
    """Records one run; does nothing where `config.uri` is None.

    A server that fails once the run has started is warned of once. Steps wait in memory until it is back.
    """

    def __init__(self, config: TrackConfig) -> None:
        self._config = config
        self._store: Store | None = None
        self._run_id = ""
        self._resumed = False
        self._seed_runs: dict[int, str] = {}
        self._sent: dict[int, set[int]] = {}
        self._waiting: dict[int, list[tuple[int, list[Metric]]]] = defaultdict(list)
        self._next_flush = 0.0
        self._warned = False

    def start(self, run: Run | Distill, folder: Path, run_id: str | None = None) -> str | None:
        """Open a run, or go on with `run_id`, and return its id; None where nothing is recorded.

        A run that is no longer there is replaced by a new one. Raises InputError, naming track.uri, where MLflow cannot be used.
        """
        if self._config.uri is None:
            return None
        from raydistill.track import store

        store.prepare()
        self._run = run
        try:
            self._store = store.Store(self._config.uri, self._config.experiment)
            self._resumed = run_id is not None and self._store.reopen(run_id)
            tags = {"raydistill.kind": "distillation" if isinstance(run, Distill) else "calibration", "raydistill.folder": str(folder)}
            self._run_id = run_id if run_id and self._resumed else self._store.open(run.name, tags, run_params(run))
        except store.failures() as error:
            raise InputError(self._unusable(error)) from None
        if run_id and not self._resumed:
            logger.warning("track.uri: MLflow has no run %s any more; recording goes on in a new one", run_id)
        return self._run_id

    def log_step(self, seed: int, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, of the calibration with `seed`."""
        if self._store is None:
            return
        self._await(seed, row)
        if time.monotonic() >= self._next_flush:
            self._flush(self._store)

    def log_report(self, report: Mapping[str, Any], folder: Path) -> None:
        """Final metrics, a nested run for each student, and what lies in the run's folder."""
        if self._store is None:
            return
        rows = {seed: lines for seed in self._run.seeds if (lines := _rows(folder, self._run, seed))}
        for seed, lines in rows.items():
            self._waiting[seed].clear()
            for row in lines:  # all that was ever measured: a process that was killed may not have sent its last steps
                self._await(seed, row)
        self._flush(self._store)
        self._attempt(self._send_report, self._store, report, folder, rows)

    def end(self, status: Status) -> None:
        """Close the run and what is nested in it."""
        if self._store is None:
            return
        self._flush(self._store)
        self._attempt(self._store.close_tree, self._run_id, status)

    # --- what waits

    def _await(self, seed: int, row: Mapping[str, Any]) -> None:
        from raydistill.track.store import metric

        entries = [metric(name, value, row["step"]) for name, value in step_metrics(row).items()]
        self._waiting[seed].append((row["step"], entries))

    def _flush(self, store: Store) -> None:
        started = time.monotonic()
        delivered = all(self._attempt(self._send, store, seed, rows) for seed, rows in self._waiting.items())
        now = time.monotonic()
        self._next_flush = now + (FLUSH_SECONDS if delivered else max(RETRY_SECONDS, 10 * (now - started)))

    def _send(self, store: Store, seed: int, rows: list[tuple[int, list[Metric]]]) -> None:
        """A step is sent only once, even if a resumed run makes it again."""
        run_id = self._run_of(store, seed)
        if seed not in self._sent:
            self._sent[seed] = store.steps(run_id, _EVERY_STEP_HAS) if self._resumed else set()
        new = [(step, entries) for step, entries in rows if step not in self._sent[seed]]
        store.log_metrics(run_id, [entry for _, entries in new for entry in entries])
        rows.clear()
        self._sent[seed] |= {step for step, _ in new}

    def _run_of(self, store: Store, seed: int) -> str:
        if isinstance(self._run, Distill) or len(self._run.seeds) == 1:
            return self._run_id
        if seed not in self._seed_runs:
            params = {"seed": str(seed), "eta": str(self._run.knob.eta)}
            self._seed_runs[seed] = store.child(self._run_id, f"{self._run.name}-seed-{seed}", "seed", params)
        return self._seed_runs[seed]

    # --- the end

    def _send_report(self, store: Store, report: Mapping[str, Any], folder: Path, rows: Mapping[int, Sequence[Mapping[str, Any]]]) -> None:
        from raydistill.track.store import metric

        entries = [metric(name, value, 0) for name, value in report_metrics(report).items()]
        if len(self._run.seeds) > 1:
            means = mean_over_seeds([row for lines in rows.values() for row in lines])
            entries += [metric(name, value, step) for step, values in means for name, value in values.items()]
        store.log_metrics(self._run_id, entries)
        self._send_students(store, report)
        self._send_artefacts(store, folder)

    def _send_students(self, store: Store, report: Mapping[str, Any]) -> None:
        from raydistill.track.store import metric

        for student in student_entries(report):
            run_id = store.child(self._run_id, student.name, "student", student.params)
            store.log_metrics(run_id, [metric(name, value, 0) for name, value in student.metrics.items()])
            store.close(run_id, "FINISHED")

    def _send_artefacts(self, store: Store, folder: Path) -> None:
        store.log_text(self._run_id, public_yaml(self._run), "config.yaml")
        for path in (folder / "report.json", folder / "report.html", folder / "metrics.jsonl", folder / "teacher", folder / "student"):
            if path.exists() and _bytes(path) < LARGEST_MODEL:
                store.log_path(self._run_id, path)

    # --- failures

    def _attempt(self, action: Callable[..., None], *arguments: Any) -> bool:
        """Whether MLflow did it; the first time that it does not is warned of."""
        from raydistill.track.store import failures

        try:
            action(*arguments)
        except failures() as error:
            if not self._warned:
                logger.warning("%s; the run goes on, and all of it is in its folder", self._unusable(error))
            self._warned = True
            return False
        return True

    def _unusable(self, error: Exception) -> str:
        uri = str(self._config.uri)
        cause = _cause(error)
        why = masked_text(f"{type(cause).__name__}: {cause}", uri)[:300]
        return f"track.uri {masked_uri(uri)!r}: MLflow cannot be used there ({why}); start its server, or set track.uri=null"


def _cause(error: BaseException) -> BaseException:
    """The system's or the database's own error, where one set off `error`: it says in few words what MLflow says in many."""
    chain = [error]
    while inner := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(inner)
    return next((one for one in reversed(chain) if isinstance(one, OSError | sqlite3.Error)), error)


def _rows(folder: Path, run: Run | Distill, seed: int) -> list[dict[str, Any]]:
    lines = RunFolder(folder, run.seeds[0]).seed(seed)
    return lines.rows() if lines.metrics.exists() else []


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
