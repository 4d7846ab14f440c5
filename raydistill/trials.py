"""The trials of a sweep: which there are, where each lies, what became of it."""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raydistill.config.load import dump_run, parse_run, set_field
from raydistill.config.run import Run
from raydistill.config.sweep import Sweep
from raydistill.errors import InputError
from raydistill.runfolder import RunFolder

_MOVES = (
    "optimizer",
    "lr",
    "kl_coef",
    "schedule",
    "adam_eps",
    "max_grad_norm",
    "clip_low",
    "clip_high",
    "importance_cap",
    "updates_per_step",
)
"""Fields of the learner that say how a teacher is moved, and nothing of what it was."""


@dataclass(frozen=True)
class Trial:
    """One run of the main job within a sweep."""

    id: str
    overrides: dict[str, Any]
    """Field and value, `knob.eta` first."""
    run: Run
    folder: RunFolder
    baselines: Path
    """Where lies what it has in common with other trials; see `Experiment`."""
    begins_at: Path | None = None
    """Folder of a run from whose last checkpoint the first seed's calibration goes on; from the original teacher if missing."""

    @property
    def stopped(self) -> Path:
        """Is there where a scheduler ended the trial early; says at which look."""
        return self.folder.root / "stopped.json"

    @property
    def failed(self) -> Path:
        """Is there where the last attempt failed; says why, on a line."""
        return self.folder.root / "failed.txt"

    def is_over(self) -> bool:
        """Whether nothing is left to do."""
        return self.folder.holds(self.run) or self.stopped.exists()

    def status(self) -> str:
        if self.folder.holds(self.run):
            return "done"
        return "stopped" if self.stopped.exists() else "failed"

    def entry(self) -> dict[str, Any]:
        """The trial as sweep.json has it."""
        status = self.status()
        report = json.loads(self.folder.report.read_text()) if status == "done" else None
        why = self.failed.read_text().strip() if status == "failed" and self.failed.exists() else None
        told = {"id": self.id, "overrides": self.overrides, "eta": self.run.knob.eta, "status": status, "report": report, "error": why}
        schedule = [change.model_dump(exclude_none=True) for change in self.run.learner.schedule]
        return told | ({"schedule": schedule} if schedule else {})


def trials_of(sweep: Sweep, folder: Path) -> list[Trial]:
    """Every combination, etas in ascending order within each of the others. Raises InputError, naming the first field that is wrong."""
    crossed = [dict(zip(sweep.sweep.over, values, strict=True)) for values in itertools.product(*sweep.sweep.over.values())]
    found = [_trial(sweep, {"knob.eta": eta, **others}, folder) for others in crossed for eta in sorted(sweep.sweep.etas)]
    ids = [trial.id for trial in found]
    if repeated := next((id_ for id_ in ids if ids.count(id_) > 1), None):
        raise InputError(f"sweep.eta and sweep.over: two trials would be called {repeated}; give values that differ in six digits")
    for trial in found:
        try:
            sweep.sweep.require_time_to_look(trial.run.calibration.steps)
        except ValueError as error:
            raise InputError(f"{trial.id}: {error}") from None
    return found


def _trial(sweep: Sweep, overrides: dict[str, Any], folder: Path) -> Trial:
    data = sweep.model_dump(mode="json", exclude={"sweep"})
    for field, value in overrides.items():
        set_field(data, field, value, f"sweep.over {field}")
    run = parse_run(data, "sweep")
    read = {field: _value(run, field) for field in overrides}
    id_ = _name(read)
    run = parse_run(data | {"name": f"{sweep.name}-{id_}"}, "sweep")
    out = RunFolder(folder / "trials" / id_, run.seeds[0])
    return Trial(id_, read, run, out, folder / "baselines" / _digest(dump_run(unmoved(run))))


def _value(run: Run, field: str) -> Any:
    """What the run made of a field's value: 1e-3 is text in YAML and a number here."""
    return functools.reduce(
        lambda node, key: node[int(key) if isinstance(node, list) else key], field.split("."), run.model_dump(mode="json")
    )


def _name(overrides: dict[str, Any]) -> str:
    """A folder's name, such as `eta-1` or `eta-1-lr0.001`."""
    parts = [f"eta{overrides['knob.eta']:+g}"]
    for field, value in overrides.items():
        if field != "knob.eta":
            text = f"{value:g}" if isinstance(value, float) else str(value)
            parts.append(field.rpartition(".")[2] + (text if re.fullmatch(r"[\w.+-]{1,24}", text) else _digest(json.dumps(value))))
    return "-".join(parts)


def unmoved(run: Run) -> Run:
    """The run without what says how its teacher is moved, and where it is recorded.

    Where two are alike so, controls, baselines and the original are the same.
    """
    learner = {name: type(run.learner).model_fields[name].default for name in _MOVES}
    knob = run.knob.model_copy(update={"eta": 0.0, "kl_budget": type(run.knob).model_fields["kl_budget"].default})
    moved = run.learner.model_copy(update=learner)
    return run.model_copy(update={"name": "baselines", "knob": knob, "learner": moved, "track": type(run.track)()})


def sweep_json(name: str, trials: Sequence[Trial]) -> dict[str, Any]:
    """The content of sweep.json."""
    return {"sweep": name, "trials": [trial.entry() for trial in trials]}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
