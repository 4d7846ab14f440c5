"""Files of a run's folder that say what MLflow has of it; see docs/outputs.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from raydistill.config.distill import Distill
from raydistill.config.run import Run
from raydistill.files import write_whole
from raydistill.runfolder import RunFolder
from raydistill.track.link import SweepLink

RUN_ID, COMPLETE = "mlflow-run-id", "mlflow-complete.json"


def known_run_id(folder: Path) -> str | None:
    """The run that MLflow has it in, if any."""
    file = folder / RUN_ID
    return file.read_text() if file.exists() else None


def rows_of(folder: Path, run: Run | Distill) -> dict[int, list[dict[str, Any]]]:
    """The lines of metrics.jsonl of each seed that has one."""
    seeds = {seed: RunFolder(folder, run.seeds[0]).seed(seed) for seed in run.seeds}
    return {seed: lines.rows() for seed, lines in seeds.items() if lines.metrics.exists()}


def mark_complete(run: Run | Distill, folder: Path, sweep: SweepLink | None) -> None:
    """Say that MLflow has all that lies in the folder by now."""
    write_whole(folder / COMPLETE, json.dumps(_what_lies_there(run, folder, sweep)) + "\n")


def is_complete(run: Run | Distill, folder: Path, sweep: SweepLink | None) -> bool:
    """Whether MLflow has all that lies in the folder, nested where it belongs."""
    file = folder / COMPLETE
    return file.exists() and json.loads(file.read_text()) == _what_lies_there(run, folder, sweep)


def _what_lies_there(run: Run | Distill, folder: Path, sweep: SweepLink | None) -> dict[str, Any]:
    steps = sum(len(lines) for lines in rows_of(folder, run).values())
    return {"sweep": sweep and sweep.run_id, "steps": steps, "report": (folder / "report.json").exists()}
