"""MLflow as the main job sees it: a record kept beside the run, never a reason for the run to fail.

One run a calibration, tagged `raydistill.kind` = calibration, with its config as params and the report as metrics and artefacts;
and one a distillation, of kind distillation.
Nested in it are a run for each student (kind student) and, where there are several seeds, one for each seed (kind seed), so
that the seeds' curves lie over one another under the same names. Their mean over seeds goes to the run itself at the end.
A trial's run is nested in that of its sweep. docs/mlflow.md has the whole.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.config.track import TrackConfig
from raydistill.errors import InputError
from raydistill.track.away import Attempts
from raydistill.track.entries import mean_over_seeds, report_metrics, run_params, step_metrics, student_entries
from raydistill.track.link import SweepLink
from raydistill.track.marker import mark_complete, rows_of
from raydistill.track.secrets import public_yaml

if TYPE_CHECKING:
    from mlflow.entities import Metric

    from raydistill.track.store import Store

Status = Literal["FINISHED", "FAILED", "KILLED"]


def status_after(error: BaseException) -> Status:
    """Of a run that ended by it. SystemExit: a scheduler's."""
    return "KILLED" if isinstance(error, KeyboardInterrupt | SystemExit) else "FAILED"


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
        self._attempt = Attempts(config.uri or "")
        self._store: Store | None = None
        self._run_id = ""
        self._resumed = False
        self._caught_up = False
        self._seed_runs: dict[int, str] = {}
        self._sent: dict[int, set[int]] = {}
        self._waiting: dict[int, list[tuple[int, list[Metric]]]] = defaultdict(list)
        self._next_flush = 0.0

    def start(
        self, run: Run | Distill, folder: Path, run_id: str | None = None, sweep: SweepLink | None = None, required: bool = True
    ) -> str | None:
        """Open a run, or go on with `run_id`, and return its id; None where nothing is recorded.

        A run that is no longer there is replaced by a new one. With `sweep`, the run is nested in the sweep's, and it and its
        students have the sweep's tags. Where MLflow cannot be used, raises InputError, naming track.uri, or warns if it is not `required`.
        """
        if self._config.uri is None:
            return None
        from raydistill.track import store

        store.prepare()
        self._run, self._folder, self._sweep = run, folder, sweep
        try:
            opened = store.Store(self._config.uri, self._config.experiment)
            self._run_id = self._open(opened, run_id)
        except store.failures() as error:
            if required:
                raise InputError(self._attempt.unusable(error)) from None
            self._attempt.warn(error)
            return None
        self._store = opened
        return self._run_id

    def _open(self, store: Store, known: str | None) -> str:
        run, sweep = self._run, self._sweep
        kind = "distillation" if isinstance(run, Distill) else "calibration"
        tags = {"raydistill.kind": kind, "raydistill.folder": str(self._folder)} | self._sweeps_tags
        self._resumed = known is not None and store.reopen(known)
        if known and self._resumed:
            if sweep and sweep.run_id:  # the sweep's run may have been made after this one
                store.nest(known, sweep.run_id, run.name, kind, tags)
            return known
        if sweep and sweep.run_id:
            self._resumed = True  # it may be there, though the folder does not know of it
            opened = store.child(sweep.run_id, run.name, kind, run_params(run), tags)
        else:
            opened = store.open(run.name, tags, run_params(run))
        if known:
            logger.warning("track.uri: MLflow has no run %s any more; recording goes on in a new one", known)
        return opened

    @property
    def _sweeps_tags(self) -> dict[str, str]:
        return self._sweep.tags if self._sweep else {}

    def log_step(self, seed: int, row: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, of the calibration with `seed`."""
        if self._store is None:
            return
        self._await(seed, row)
        if time.monotonic() >= self._next_flush:
            self._flush(self._store)

    def log_rows(self, folder: Path) -> None:
        """All that was ever measured in the steps: a process that was killed may not have sent its last ones."""
        if self._store is None:
            return
        for seed, lines in rows_of(folder, self._run).items():
            self._waiting[seed].clear()
            for row in lines:
                self._await(seed, row)
        self._flush(self._store)
        self._caught_up = True

    def log_report(self, report: Mapping[str, Any], folder: Path) -> None:
        """Final metrics, a nested run for each student, and what lies in the run's folder."""
        if self._store is None:
            return
        self.log_rows(folder)
        self._caught_up = self._attempt(self._send_report, self._store, report, folder)

    def end(self, status: Status) -> bool:
        """Close the run and what is nested in it; whether MLflow has all that lies in the run's folder, which a file there says then."""
        if self._store is None:
            return False
        delivered = self._flush(self._store)
        closed = self._attempt(self._store.close_tree, self._run_id, status)
        complete = self._caught_up and delivered and closed
        if complete:
            mark_complete(self._run, self._folder, self._sweep)
        return complete

    # --- what waits

    def _await(self, seed: int, row: Mapping[str, Any]) -> None:
        from raydistill.track.store import metric

        values = step_metrics(row).items()
        # What a step is known by goes last: a step that was sent in part is then sent again.
        entries = [metric(name, value, row["step"]) for name, value in sorted(values, key=lambda one: one[0] == _EVERY_STEP_HAS)]
        self._waiting[seed].append((row["step"], entries))

    def _flush(self, store: Store) -> bool:
        """Whether nothing waits any more."""
        started = time.monotonic()
        delivered = all(self._attempt(self._send, store, seed, rows) for seed, rows in self._waiting.items())
        now = time.monotonic()
        self._next_flush = now + (FLUSH_SECONDS if delivered else max(RETRY_SECONDS, 10 * (now - started)))
        return delivered

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
            self._seed_runs[seed] = store.child(self._run_id, f"{self._run.name}-seed-{seed}", "seed", params, self._sweeps_tags)
        return self._seed_runs[seed]

    # --- the end

    def _send_report(self, store: Store, report: Mapping[str, Any], folder: Path) -> None:
        from raydistill.track.store import metric

        when = _when(folder)
        entries = [metric(name, value, 0, when) for name, value in report_metrics(report).items()]
        rows = rows_of(folder, self._run)
        if len(self._run.seeds) > 1:
            means = mean_over_seeds([row for lines in rows.values() for row in lines])
            entries += [metric(name, value, step, when) for step, values in means for name, value in values.items()]
        store.log_metrics(self._run_id, entries)
        self._send_students(store, report, when)
        self._send_artefacts(store, folder)

    def _send_students(self, store: Store, report: Mapping[str, Any], when: int | None) -> None:
        from raydistill.track.store import metric

        sweep = self._sweep
        for student in student_entries(report):
            name = f"{student.name} {sweep.trial}" if sweep else student.name  # what charts of a sweep's students call them
            params = {**(sweep.params if sweep else {}), **student.params}
            run_id = store.child(self._run_id, name, "student", params, self._sweeps_tags)
            store.log_metrics(run_id, [metric(key, value, 0, when) for key, value in student.metrics.items()])
            store.close(run_id, "FINISHED")

    def _send_artefacts(self, store: Store, folder: Path) -> None:
        store.log_text(self._run_id, public_yaml(self._run), "config.yaml")
        for path in (folder / "report.json", folder / "report.html", folder / "metrics.jsonl", folder / "teacher", folder / "student"):
            if path.exists() and _bytes(path) < LARGEST_MODEL:
                store.log_path(self._run_id, path)


def _when(folder: Path) -> int | None:
    """The report's time in ms since 1970: metrics that are sent again with the same time change nothing."""
    report = folder / "report.json"
    return int(report.stat().st_mtime * 1000) if report.exists() else None


def _bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file())
