"""One trial of a sweep in its own process, where Ray Tune has started it: the main job, by actors that are kept for the next trial."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from raydistill.config.run import Run
from raydistill.config.sweep import ASHA, PBT
from raydistill.crew import Crew
from raydistill.errors import InputError
from raydistill.evolve import Leg
from raydistill.experiment import Experiment
from raydistill.files import lock_of, write_whole
from raydistill.jobs import main_job, tracked
from raydistill.looks import Looks, look
from raydistill.models.lineup import Lineup
from raydistill.progress import Console
from raydistill.runfolder import RunFolder
from raydistill.runlog import explained
from raydistill.track.link import SweepLink
from raydistill.trials import Trial

# How long Tune waits for a trial that it has stopped to wind up, MLflow's record of it included, before it would use the process for
# the next one. When that time is over Tune waits for ever, and its own 2 seconds are soon over where MLflow's server is away.
os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "3600")

PROGRESS = "progress.log"
"""In the trial's folder: what a person would see on the terminal."""


@dataclass(frozen=True)
class Assignment:
    """What a trial's process is sent."""

    trial: Trial
    lineup: Lineup
    scheduler: ASHA | PBT | None
    record: SweepLink
    """The trial's place in MLflow's record of the sweep."""
    where: Path = field(default_factory=Path.cwd)
    """What relative paths of the config are relative to: where the command was given, which need not be where Ray was started."""

    def looks(self) -> Looks | None:
        """At the trial's students, where they tell whether it goes on."""
        if not isinstance(self.scheduler, ASHA) or self.lineup.student is None:
            return None
        return Looks(self.scheduler, self.trial.run, self.lineup.student.config, self.trial.folder.root)


class Kept:
    """The actors of the last trial, for the next one if it wants the same."""

    def __init__(self) -> None:
        self._crew: Crew | None = None
        self._made_for: Run | None = None

    def crew(self, run: Run, lineup: Lineup, console: Console) -> Crew:
        """Actors for a run: those at hand where they fit it, else new ones."""
        wanted = _without_what_actors_do_not_know(run)
        if self._crew is None or wanted != self._made_for:
            self.drop()
            self._crew, self._made_for = Crew(run, lineup), wanted
            with console.busy("starting the actors"):
                self._crew.ready()
        self._crew.run = run
        return self._crew

    def drop(self) -> None:
        """End the actors: what failed among them is not to be met again."""
        if self._crew is not None:
            self._crew.shutdown()
        self._crew = None


_kept = Kept()


def _without_what_actors_do_not_know(run: Run) -> Run:
    """Actors are started with neither the knob's setting nor the students', and what the learner steps by is set as it steps."""
    learner = run.learner.model_copy(update={"lr": 1.0, "kl_coef": 0.0, "schedule": ()})
    return run.model_copy(update={"name": "", "knob": type(run.knob)(), "students": None, "learner": learner})


def run_trial(config: Mapping[str, Any], assignments: Mapping[str, Assignment]) -> None:
    """What Ray Tune calls; `config["trial"]` says which. Raises RunError where the trial failed and may be tried again.

    Bad input is reported instead, as `refused`. Where a scheduler ends the trial, SystemExit is raised in one of its reports.
    """
    from ray import tune

    assignment = assignments[config["trial"]]
    trial = assignment.trial
    if assignment.where.is_dir():
        os.chdir(assignment.where)
    trial.folder.root.mkdir(parents=True, exist_ok=True)
    with FileLock(lock_of(trial.folder.root)):  # a sweep that was killed may leave a process that works on for a moment
        trial.failed.unlink(missing_ok=True)
        looks = assignment.looks()
        if looks:
            looks.repeat()
        if trial.is_over():
            tune.report({"over": True})
            return
        try:
            _work(assignment, looks)
        except InputError as error:
            _kept.drop()
            write_whole(trial.failed, f"{error}\n")
            tune.report({"refused": str(error)})
            return
        except Exception as error:
            _kept.drop()
            write_whole(trial.failed, f"{error}\n")
            raise
    tune.report({"over": True})


def _work(assignment: Assignment, looks: Looks | None) -> None:
    trial = assignment.trial
    with (trial.folder.root / PROGRESS).open("a", buffering=1, encoding="utf-8") as log:
        if isinstance(trial, Leg):
            _walk(trial, assignment, Console(log))
        else:
            _main_job(assignment, looks, Console(log))


def _main_job(assignment: Assignment, looks: Looks | None, console: Console) -> None:
    trial, lineup = assignment.trial, assignment.lineup
    with tracked(trial.run, trial.folder, assignment.record) as tracker, explained(trial.folder, to_go_on=None):
        crew = _prepared(trial, lineup, console).crew

        def on_step(seed: int, row: dict[str, Any]) -> None:
            tracker.log_step(seed, row)
            if looks:
                looks.after(seed, row["step"] + 1, crew)

        main_job(trial.run, lineup, crew, trial.folder, trial.baselines, tracker, console, on_step)


def _walk(leg: Leg, assignment: Assignment, console: Console) -> None:
    assert isinstance(assignment.scheduler, PBT)  # noqa: S101
    assert assignment.lineup.student is not None  # noqa: S101
    with explained(leg.folder, to_go_on=None):
        experiment = _prepared(leg, assignment.lineup, console)
        experiment.calibrate_until(leg.until)
        student, work = assignment.lineup.student.config, leg.folder.root / "look"
        with console.busy("looking at a student"):
            score = look(assignment.scheduler, leg.run, student, experiment.crew, work)
        write_whole(leg.look, json.dumps({"student": score}))


def _prepared(trial: Trial, lineup: Lineup, console: Console) -> Experiment:
    """With its actors up, what it shares with others made, and what it goes on from in its place."""
    experiment = Experiment(trial.run, lineup, _kept.crew(trial.run, lineup, console), trial.folder, trial.baselines, console)
    trial.baselines.parent.mkdir(parents=True, exist_ok=True)
    with console.busy("what trials share"), FileLock(lock_of(trial.baselines)):  # the first makes it, others wait and read
        experiment.make_baselines()
    if trial.begins_at:
        seed = trial.run.seeds[0]
        trial.folder.seed(seed).begin_at(RunFolder(trial.begins_at, seed).seed(seed))
    return experiment
