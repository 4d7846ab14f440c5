"""What MLflow was not there to be told is sent later, from a run's folder: everything of the run is in there."""

from __future__ import annotations

import json
from pathlib import Path

from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.files import write_whole
from raydistill.track.link import SweepLink
from raydistill.track.marker import RUN_ID, is_complete, known_run_id
from raydistill.track.tracker import Status, Tracker


def send_unsent(run: Run | Distill, folder: Path, sweep: SweepLink | None = None, status: Status = "FAILED") -> bool:
    """Make MLflow's record of a run, or complete it, from what lies in the run's folder; whether MLflow has all of that now.

    `status` is how a run ended that has no report; one with a report is finished. MLflow is not asked where the record is complete, or
    where the run was never begun. Sent twice, a record stays as it is. Where MLflow is away, that is warned of: with
    many runs, stop at the first that it does not take. The run must not be going on meanwhile.
    """
    if run.track.uri is None or not (folder / "config.yaml").exists() or is_complete(run, folder, sweep):
        return True
    tracker = Tracker(run.track)
    run_id = tracker.start(run, folder, known_run_id(folder), sweep, required=False)
    if run_id is None:
        return False
    write_whole(folder / RUN_ID, run_id)
    report = folder / "report.json"
    if report.exists():
        tracker.log_report(json.loads(report.read_text()), folder)
        return tracker.end("FINISHED")
    tracker.log_rows(folder)
    return tracker.end(status)
