"""A sweep's trials as a population: the parts of their first seed's calibration, from look to look, as trials of their own on Tune."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from raydistill.config.load import dump_run
from raydistill.config.sweep import PBT, Sweep
from raydistill.errors import RunError
from raydistill.files import write_whole
from raydistill.population import Lineage, next_generation, with_lineage
from raydistill.progress import Console
from raydistill.runfolder import RunFolder
from raydistill.trials import Trial

FOLDER, RECORD = "population", "population.json"
"""In a sweep's folder: the legs, as long as a trial may go on from one; what was seen and decided."""
_SCORES = "scores.json"
"""Among the legs: the scores of each generation that was decided, by its steps and by trial."""


@dataclass(frozen=True, kw_only=True)
class Leg(Trial):
    """A part of a calibration, and a look at a student of the teacher it leads to. Trials with one history share it."""

    until: int
    """Steps that are done at its end, if the KL budget lasts."""

    @property
    def look(self) -> Path:
        return self.folder.root / "look.json"

    def is_over(self) -> bool:
        return self.look.exists()

    def status(self) -> str:
        return "done" if self.is_over() else "failed"

    @property
    def score(self) -> float | None:
        """The student's; None where the leg failed."""
        return json.loads(self.look.read_text())["student"] if self.is_over() else None


RunLegs = Callable[[Sequence[Leg]], None]


def evolve(sweep: Sweep, pbt: PBT, trials: Sequence[Trial], folder: Path, run_legs: RunLegs, console: Console) -> None:
    """Find each trial's schedule, and leave it in population.json, from which `settled` takes it. Legs that are over are read back.

    So are the scores of generations that were decided: a leg that failed then might not fail now, and those after it would be others.
    Raises RunError where all trials failed.
    """
    lineages: dict[str, Lineage] = {trial.id: ({field: trial.overrides[field] for field in sweep.sweep.over},) for trial in trials}
    values = {field: [trial.overrides[field] for trial in trials] for field in sweep.sweep.over}
    history: list[dict[str, Any]] = []
    file = folder / FOLDER / _SCORES
    decided: dict[str, dict[str, float | None]] = json.loads(file.read_text()) if file.exists() else {}
    for until in range(pbt.every, sweep.calibration.steps, pbt.every):
        if (known := str(until)) not in decided:
            decided[known] = _scores({trial.id: _leg(trial, lineages[trial.id], pbt, folder) for trial in trials}, run_legs)
            if all(score is None for score in decided[known].values()):
                raise RunError(f"every trial failed on the way to step {until}, see {folder / FOLDER}")
            write_whole(file, json.dumps(decided))
        scores = decided[known]
        history.append({"steps": until, "trials": {id_: {"student": scores[id_], **lineages[id_][-1]} for id_ in scores}})
        console.say(f"after {until} steps: " + ", ".join(f"{id_} {_told(score)}" for id_, score in scores.items()))
        lineages = next_generation(lineages, scores, values, pbt, sweep.seeds[0])
    write_whole(folder / RECORD, json.dumps({"generations": history, "lineages": lineages}, indent=2) + "\n")


def _scores(legs: Mapping[str, Leg], run_legs: RunLegs) -> dict[str, float | None]:
    """By trial, once those legs were run that are not over; several trials may share one."""
    if waiting := [leg for leg in {leg.id: leg for leg in legs.values()}.values() if not leg.is_over()]:
        run_legs(waiting)
    return {id_: leg.score for id_, leg in legs.items()}


def settled(sweep: Sweep, pbt: PBT, trials: Sequence[Trial], folder: Path) -> list[Trial]:
    """The trials with the schedules that were found for them, if they were; each goes on where its last leg ended."""
    file = folder / RECORD
    if not file.exists():
        return list(trials)
    lineages = {id_: tuple(lineage) for id_, lineage in json.loads(file.read_text())["lineages"].items()}
    return [
        replace(
            trial,
            overrides={**trial.overrides, **lineages[trial.id][0]},  # it may begin as another one did, whatever its id says
            run=with_lineage(trial.run, lineages[trial.id], pbt.every),
            begins_at=_folder(trial, lineages[trial.id][:-1], pbt, folder),
        )
        for trial in trials
    ]


def _leg(trial: Trial, lineage: Lineage, pbt: PBT, folder: Path) -> Leg:
    own = _folder(trial, lineage, pbt, folder)
    run = with_lineage(trial.run, lineage, pbt.every)
    return Leg(
        id=own.name,
        overrides={**trial.overrides, **lineage[0]},
        run=run,
        folder=RunFolder(own, run.seeds[0]),
        baselines=trial.baselines,
        begins_at=_folder(trial, lineage[:-1], pbt, folder) if len(lineage) > 1 else None,
        until=len(lineage) * pbt.every,
    )


def _folder(trial: Trial, lineage: Lineage, pbt: PBT, folder: Path) -> Path:
    """Named after all that the teacher at the end of it depends on, which is not the trial's name."""
    run = with_lineage(trial.run, lineage, pbt.every).model_copy(update={"name": "leg"})
    return folder / FOLDER / f"step{len(lineage) * pbt.every}-{hashlib.sha256(dump_run(run).encode()).hexdigest()[:8]}"


def _told(score: float | None) -> str:
    return "failed" if score is None else f"{score:.3f}"
