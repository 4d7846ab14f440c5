"""The closed loop of a target around a toy teacher: what it keeps, when it ends, and that a resumed run ends alike."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any, cast

import pytest

from raydistill.config.run import Run
from raydistill.crew import Crew
from raydistill.runfolder import SeedFolder
from raydistill.target import ClosedLoop, Scores, outcome
from tests.report.synthetic_facts import run_config

TWIN = 0.4


class ToyTeacher:
    """A teacher that is one number, and its own learner: log ratio = reach * tanh(number), KL = number squared."""

    def __init__(self, reach: float = 1.2, speed: float = 0.05) -> None:
        self.number, self.reach, self.speed = 0.0, reach, speed
        self.learner = self
        self.synced = 0
        self.measurements: list[int] = []

    def save_checkpoint(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "number").write_text(repr(self.number))

    def load_checkpoint(self, folder: Path) -> None:
        self.number = float((folder / "number").read_text())

    def sync(self, version: int) -> float:
        self.synced = version
        return 0.0

    def measure(self, group: int) -> Scores:
        self.measurements.append(group)
        return Scores(TWIN * math.exp(self.reach * math.tanh(self.number)), TWIN)


def target_run(asked: float, **changes: Any) -> Run:
    target = {"student_ratio": asked, "measure_every": 3}
    return run_config(0.0, (1,), knob={"target": target, "kl_budget": 2.0}, calibration={"steps": 60} | changes)


def calibrated(run: Run, teacher: ToyTeacher, root: Path, killed_after: int | None = None) -> list[dict[str, Any]]:
    """The part of `calibrate` that has to do with a target, checkpoints every four steps; its lines of metrics.jsonl."""
    assert run.knob.target is not None
    folder = SeedFolder(root)
    root.mkdir(exist_ok=True)
    start = folder.last_checkpoint() or 0
    if start:
        teacher.load_checkpoint(folder.checkpoint(start))
    folder.keep_rows(start)
    loop = ClosedLoop(run, run.knob.target, cast("Crew", teacher), folder, teacher.measure)
    for step in range(start, run.calibration.steps):
        if loop.over or step == killed_after:
            break
        kl = teacher.number**2
        teacher.number += teacher.speed * loop.knob.eta
        folder.append_row({"step": step, "kl_anchor": kl} | loop.look(step + 1, kl))
        if (step + 1) % 4 == 0:
            teacher.save_checkpoint(folder.checkpoint(step + 1))
            folder.drop_checkpoints_before(step + 1)
            loop.drop_worse()
    if killed_after is None:
        loop.settle()
    return folder.rows()


def found(run: Run, rows: list[dict[str, Any]]) -> Any:
    assert run.knob.target is not None
    return outcome(run, run.knob.target, rows)


@pytest.mark.parametrize("asked", [0.5, 0.8, 1.3])
def test_it_stops_where_it_was_asked_to_and_another_group_confirms_it(tmp_path: Path, asked: float) -> None:
    run, teacher = target_run(asked), ToyTeacher()
    rows = calibrated(run, teacher, tmp_path / "run")
    assert teacher.measure(0).ratio == pytest.approx(asked, abs=0.05)
    assert teacher.measurements[-3:-1] == [0, 1]
    last = found(run, rows)
    assert (last.asked, last.met, last.ended, last.steps) == (asked, True, "met", len(rows))
    assert last.reached == pytest.approx(teacher.measure(0).ratio)
    assert [row["target"] is not None for row in rows] == [(row["step"] + 1) % 3 == 0 for row in rows]


def test_what_comes_too_late_or_too_dear_keeps_the_best_teacher(tmp_path: Path) -> None:
    run, teacher = target_run(0.1, steps=60), ToyTeacher(speed=0.1)
    rows = calibrated(run, teacher, tmp_path / "far")
    assert len(rows) == 16  # 15 steps of 0.1 pass a KL of 2, the next one sees it, and none of its own would have been measured
    assert (found(run, rows).met, found(run, rows).ended) == (False, "the KL budget was spent")
    run, teacher = target_run(0.1, steps=7), ToyTeacher()
    rows = calibrated(run, teacher, tmp_path / "short")
    assert [bool(row["target"]) for row in rows] == [False, False, True, False, False, True, True]
    assert (found(run, rows).ended, found(run, rows).steps) == ("the steps were over", 7)


def test_a_teacher_that_gets_worse_again_is_brought_back(tmp_path: Path) -> None:
    """Nothing that it does brings students below 0.6 of the control; what came nearest is what is kept."""

    class Fickle(ToyTeacher):
        def measure(self, group: int) -> Scores:
            return Scores(TWIN * (0.6 + (self.number + 0.3) ** 2), TWIN)

    run, teacher = target_run(0.3, steps=30), Fickle()
    rows = calibrated(run, teacher, tmp_path / "run")
    best = min((row for row in rows if row["target"]), key=lambda row: row["target"]["ratio"])
    assert found(run, rows).ended == "eta was at its bound"
    assert found(run, rows).steps == best["step"] + 1 < len(rows)
    assert teacher.measure(0).ratio == pytest.approx(best["target"]["ratio"])
    assert teacher.synced == best["step"] + 1


@pytest.mark.parametrize("asked", [0.3, 0.8])
def test_a_resumed_loop_is_the_same_loop(tmp_path: Path, asked: float) -> None:
    run, whole, resumed = target_run(asked, steps=20), ToyTeacher(), ToyTeacher()
    rows = calibrated(run, whole, tmp_path / "whole")
    for killed_after in range(len(rows)):
        shutil.rmtree(tmp_path / "killed", ignore_errors=True)
        calibrated(run, ToyTeacher(), tmp_path / "killed", killed_after)
        assert json.dumps(calibrated(run, resumed := ToyTeacher(), tmp_path / "killed")) == json.dumps(rows)
        assert resumed.number == whole.number
