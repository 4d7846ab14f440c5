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
from raydistill.errors import RunError
from raydistill.evolve import RECORD, Leg, evolve, settled
from raydistill.progress import Console
from raydistill.sweep import trials_to_do
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
    assert trials_to_do(sweep, tmp_path) == after  # a start's, and a dry run's
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


def test_a_leg_that_failed_is_not_decided_anew(sweep: Sweep, tmp_path: Path) -> None:
    """Killed in the second generation, and whatever failed in the first would not fail again."""
    pbt, out, runs = pbt_of(sweep), tmp_path / "killed", list[str]()

    def fails(leg: Leg) -> float | None:
        return None if leg.until == 5 and leg.run.learner.lr == 4e-3 else by_lr(leg)

    def killed(leg: Leg) -> float | None:
        if leg.until == 10:
            raise KeyboardInterrupt
        return fails(leg)

    trials = trials_of(sweep, out)
    with pytest.raises(KeyboardInterrupt):
        evolve(sweep, pbt, trials, out, legs_run(killed, []), Console())
    assert settled(sweep, pbt, trials, out) == trials
    evolve(sweep, pbt, trials, out, legs_run(by_lr, runs), Console())
    assert runs
    assert not [id_ for id_ in runs if id_.startswith("step5-")]
    whole = tmp_path / "whole"
    evolved(sweep, whole, fails)
    assert (out / RECORD).read_text() == (whole / RECORD).read_text()
    first = json.loads((out / RECORD).read_text())["generations"][0]["trials"]
    assert {id_ for id_, seen in first.items() if seen["student"] is None} == {id_ for id_ in first if "lr0.004" in id_}


def test_where_all_failed_nothing_is_decided_and_all_are_tried_again(sweep: Sweep, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="every trial failed on the way to step 5"):
        evolved(sweep, tmp_path, lambda _: None)
    assert len(evolved(sweep, tmp_path)) == 8
