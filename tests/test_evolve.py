"""A sweep's population from look to look: what is decided by it, read back and told. What runs a leg stands in for Ray Tune alone."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from raydistill.config.load import load_job
from raydistill.config.sweep import PBT, Sweep
from raydistill.evolve import Leg, evolve, settled
from raydistill.progress import Console
from raydistill.track.link import SweepLink
from raydistill.trials import Trial, trials_of

CONFIG = {
    "name": "s",
    "teacher": {"model": "demo:teacher"},
    "proxy": {"model": "demo:proxy"},
    "students": {"model": {"model": "demo:student"}, "methods": [{"method": "seqkd"}]},
    "calibration": {"steps": 20},
    "sweep": {
        "eta": [1],
        "over": {"learner.lr": [5e-4, 1e-3, 2e-3, 4e-3], "learner.kl_coef": [0.1, 0.3]},
        "scheduler": {"kind": "pbt", "every": 5, "replace": 0.5},
    },
}


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    path = tmp_path / "s.yaml"
    path.write_text(yaml.safe_dump(CONFIG))
    return load_job(Sweep, path, [])


def pbt_of(sweep: Sweep) -> PBT:
    assert isinstance(sweep.sweep.scheduler, PBT)
    return sweep.sweep.scheduler


def legs_run(score: Callable[[Leg], float | None], done: list[str]) -> Callable[[Sequence[Leg]], None]:
    """Leaves what legs leave, of those that do not fail, and notes their ids."""

    def run(legs: Sequence[Leg]) -> None:
        for leg in legs:
            done.append(leg.id)
            if (found := score(leg)) is not None:
                leg.look.parent.mkdir(parents=True, exist_ok=True)
                leg.look.write_text(json.dumps({"student": found}))

    return run


def by_lr(leg: Leg) -> float:
    """The greater the learning rate at first, the better the student."""
    return leg.run.learner.lr


def evolved(sweep: Sweep, out: Path, score: Callable[[Leg], float | None] = by_lr) -> list[Trial]:
    trials = trials_of(sweep, out)
    evolve(sweep, pbt_of(sweep), trials, out, legs_run(score, []), Console())
    return settled(sweep, pbt_of(sweep), trials, out)


def value_of(run: Any, field: str) -> Any:
    return run.model_dump()["learner"][field.removeprefix("learner.")]


def test_overrides_are_what_the_teacher_began_with_whatever_it_was_called(sweep: Sweep, tmp_path: Path) -> None:
    before, after = trials_of(sweep, tmp_path), evolved(sweep, tmp_path)
    assert [trial.id for trial in after] == [trial.id for trial in before]
    replaced = [new for new, old in zip(after, before, strict=True) if new.overrides != old.overrides]
    assert replaced
    for trial in after:
        entry = trial.entry()
        for field in sweep.sweep.over:
            assert entry["overrides"][field] == value_of(trial.run, field)
        assert list(entry["overrides"]) == ["knob.eta", *sweep.sweep.over]
        assert entry["eta"] == entry["overrides"]["knob.eta"] == 1
        assert entry.get("schedule", []) == [change.model_dump(exclude_none=True) for change in trial.run.learner.schedule]
        assert SweepLink(None, trial.id, trial.overrides).params["learner.lr"] == str(trial.run.learner.lr)
