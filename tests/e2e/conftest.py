"""The command line as a user calls it, in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

TINY = [
    "calibration.steps=4",
    "calibration.checkpoint_every=2",
    "calibration.prompts=4",
    "calibration.samples=4",
    "evaluation.prompts=24",
    "evaluation.teacher_samples=2",
    "seeds=[1]",
    "students.methods=[{method: seqkd, samples: 64, steps: 6}, {method: kd, samples: 64, steps: 6}, {method: gkd, steps: 4, batch: 8}]",
    "diagnosis=null",
    "track.uri=null",
]
"""A run of the main job that takes a minute: every part works, nothing is learnt."""


ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {"COLUMNS": "200"}
"""As a user has it: nothing chosen about Ray."""


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def command(*arguments: str) -> list[str]:
    return [sys.executable, "workflows/calibrate.py", *arguments]


def workflow(name: str, *arguments: str, timeout: float = 300) -> Ended:
    """Runs one of `workflows/` with arguments to its end."""
    command = [sys.executable, f"workflows/{name}.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def run() -> Callable[..., Ended]:
    """Runs `workflows/calibrate.py` with arguments to its end."""
    return partial(workflow, "calibrate")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics without what differs from run to run."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def report(folder: Path) -> dict[str, Any]:
    """A run's report without what differs from run to run."""
    data = json.loads((folder / "report.json").read_text())
    return {key: value for key, value in data.items() if key not in ("seconds", "run")}


def executed(name: str, parameters: dict[str, Any]) -> str:
    """Run a notebook in reduced form: its cell of parameters is replaced. What its cells showed, as JSON."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(Path("notebooks") / f"{name}.ipynb", as_version=4)
    (cell,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ())]
    assert all(f"\n{parameter}" in f"\n{cell.source}" for parameter in parameters)  # or they would replace nothing
    cell.source += "".join(f"\n{parameter} = {value!r}" for parameter, value in parameters.items())
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": "notebooks"}}).execute(env=ENVIRONMENT)
    return json.dumps([output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs])
