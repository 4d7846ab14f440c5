"""Ray Tune: the only place that knows it, apart from what a trial reports. To be imported once Ray is initialised."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler

from raydistill.config.sweep import ASHA, PBT, Sweep
from raydistill.files import write_whole
from raydistill.progress import Console
from raydistill.room import Resources
from raydistill.trial import PROGRESS, Assignment, run_trial
from raydistill.trials import Trial

_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths of a config are relative to where the command was given
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C ends the sweep as it ends everything else
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # only a look has a score
    "RAY_AIR_NEW_OUTPUT": "0",
}


def run_trials(
    trials: Sequence[Trial],
    assignments: Mapping[str, Assignment],
    bundles: Mapping[str, Sequence[Resources]],
    sweep: Sweep,
    at_once: int,
    work: Path,
    console: Console,
) -> None:
    """Run trials, each a thin driver in a placement group that covers its actors, which its process keeps for the next trial.

    What became of each lies in its folder. `work` is for Tune's own files.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told below
    shutil.rmtree(work, ignore_errors=True)
    trainable = tune.with_resources(
        tune.with_parameters(run_trial, assignments=assignments),
        lambda config: tune.PlacementGroupFactory([dict(bundle) for bundle in bundles[config["trial"]]]),
    )
    longest = max(trial.run.calibration.steps for trial in trials)
    tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search([trial.id for trial in trials])},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=at_once,
            reuse_actors=True,
            scheduler=_scheduler(sweep.sweep.scheduler, longest),
        ),
        run_config=tune.RunConfig(
            name=work.name,
            storage_path=str(work.parent),
            failure_config=tune.FailureConfig(max_failures=sweep.sweep.retries),
            callbacks=[_Told({trial.id: trial for trial in trials}, console)],
            verbose=0,
        ),
    ).fit()


def _scheduler(asha: ASHA | PBT | None, steps: int) -> AsyncHyperBandScheduler | None:
    """Looks come at Tune's rungs: after `first_look` steps, and after `factor` times as many each time. Legs of a population all run."""
    if not isinstance(asha, ASHA):
        return None
    mode = "max" if asha.keep == "high" else "min"
    return AsyncHyperBandScheduler(
        time_attr="steps", metric="student", mode=mode, grace_period=asha.first_look, reduction_factor=asha.factor, max_t=steps + 1
    )


class _Told(tune.Callback):
    """Tells the user what trials are at, and notes in a trial's folder what only the driver knows: that it was stopped, or died."""

    def __init__(self, trials: Mapping[str, Trial], console: Console) -> None:
        self._trials, self._console = trials, console
        self._read: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune keeps a copy to restore itself from, which nobody does: folders are what a sweep goes on from

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        log = self._known(trial).folder.root / PROGRESS
        self._read[self._known(trial).id] = log.stat().st_size if log.exists() else 0  # what earlier attempts said is known

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        for one in trials:
            if one.status == "RUNNING":
                self._pass_on(self._known(one))

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        known = self._known(trial)
        self._pass_on(known)
        if known.status() == "failed" and not known.failed.exists():
            write_whole(known.stopped, json.dumps({name: trial.last_result[name] for name in ("steps", "student")}))
        self._console.say(f"{known.id}: {known.status()}")

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._console.say(f"{self._known(trial).id}: failed, and is tried again: {self._why(trial)}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        known = self._known(trial)
        self._pass_on(known)
        write_whole(known.failed, f"{self._why(trial)}\n")
        self._console.say(f"{known.id}: failed: {self._why(trial)}")

    def _known(self, trial: Any) -> Trial:
        return self._trials[trial.config["trial"]]

    def _why(self, trial: Any) -> str:
        """What the trial said itself; a process that was killed says nothing."""
        failed = self._known(trial).failed
        return failed.read_text().strip() if failed.exists() else "its process died"

    def _pass_on(self, known: Trial) -> None:
        """What the trial has said since."""
        log = known.folder.root / PROGRESS
        if not log.exists():
            return
        read = self._read.get(known.id, 0)
        said = log.read_bytes()[read:]
        whole = said[: said.rfind(b"\n") + 1]
        self._read[known.id] = read + len(whole)
        for line in whole.decode(errors="replace").splitlines():
            self._console.say(f"{known.id}: {line}")
