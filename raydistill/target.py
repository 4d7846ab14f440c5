"""The closed loop around a calibration: measures its students as it goes, moves eta, keeps the best teacher and says when it is over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from raydistill.config.knob import KnobConfig
from raydistill.config.run import Run
from raydistill.config.target import TargetConfig
from raydistill.crew import Crew
from raydistill.report.facts import TargetFacts
from raydistill.reward.controller import Controller, nearest, within
from raydistill.runfolder import SeedFolder

GROUPS = 2
"""Of students: those of every measurement, and those that confirm one."""


@dataclass(frozen=True)
class Scores:
    """Mean scores of students distilled from the teacher of the moment, and of their twins of the original teacher."""

    shadow: float
    twin: float
    """Above 0."""

    @property
    def ratio(self) -> float:
        return self.shadow / self.twin

    def pooled(self, other: Scores) -> Scores:
        """With as many others, beside the same twins."""
        return Scores((self.shadow + other.shadow) / 2, self.twin)

    def to_dict(self) -> dict[str, float]:
        return {"ratio": self.ratio, "shadow": self.shadow, "twin": self.twin}


Measure = Callable[[int], Scores]
"""Distils a group of students, by its number, from the teacher whose weights were synced last."""


class ClosedLoop:
    """What a calibration with a target asks after each step.

    All that it knows lies in the lines of metrics.jsonl: one that goes on from a checkpoint takes those in again.
    """

    def __init__(self, run: Run, target: TargetConfig, crew: Crew, folder: SeedFolder, measure: Measure) -> None:
        self._run, self._target, self._crew, self._folder, self._measure = run, target, crew, folder, measure
        self._controller = Controller(target, run.knob.eta)
        self._measured: list[tuple[int, float]] = []  # (steps done, ratio)
        self.over = False
        """Whether the target is met, or cannot be."""
        for row in folder.rows():
            if row["target"]:
                self._take(row["step"] + 1, row["kl_anchor"], row["target"]["ratio"])

    @property
    def knob(self) -> KnobConfig:
        """The knob as it is turned now."""
        return self._run.knob.model_copy(update={"eta": self._controller.eta})

    def look(self, step: int, kl: float) -> dict[str, Any]:
        """After `step` steps, the last of which found a KL of `kl`, what its line of metrics.jsonl gets; moves eta where it measures."""
        found: dict[str, Any] = {"eta": self._controller.eta, "target": None}
        if step % self._target.measure_every and step < self._run.calibration.steps and kl < self._run.knob.kl_limit:
            return found
        scores = self._measure(0)
        if within(self._target, scores.ratio):
            # Of several measurements the one that chance brought near is stopped at: others have to agree.
            scores = scores.pooled(self._measure(1))
        self._take(step, kl, scores.ratio)
        if self._best() == step:
            self._crew.learner.save_checkpoint(self._folder.best(step))
        return found | {"target": scores.to_dict()}

    def drop_worse(self) -> None:
        """To be called once a checkpoint is whole: a run that goes on from it needs the best teacher up to then and no other."""
        for folder in self._folder.checkpoints.glob("best-*"):
            if not self._measured or folder != self._folder.best(self._best()):
                shutil.rmtree(folder)

    def settle(self) -> None:
        """Give learner and engines the best teacher. They have the one that was measured last: no calibration ends between two."""
        if self._best() != self._measured[-1][0]:
            self._crew.learner.load_checkpoint(self._folder.best(self._best()))
            self._crew.sync(self._best())

    def _best(self) -> int:
        return self._measured[nearest(self._target, [ratio for _, ratio in self._measured])][0]

    def _take(self, step: int, kl: float, ratio: float) -> None:
        self._controller.take(ratio)
        self._measured.append((step, ratio))
        self.over = within(self._target, ratio) or self._controller.stuck or kl >= self._run.knob.kl_limit


def outcome(run: Run, target: TargetConfig, rows: Sequence[dict[str, Any]]) -> TargetFacts:
    """How a calibration with a target ended, from its lines of metrics.jsonl."""
    measured = [row for row in rows if row["target"]]
    best = measured[nearest(target, [row["target"]["ratio"] for row in measured])]
    met = within(target, best["target"]["ratio"])
    why = "met" if met else _why_not(run, rows[-1])
    return TargetFacts(asked=target.student_ratio, reached=best["target"]["ratio"], eta=best["eta"], steps=best["step"] + 1, ended=why)


def _why_not(run: Run, last: dict[str, Any]) -> str:
    if last["kl_anchor"] >= run.knob.kl_limit:
        return "the KL budget was spent"
    return "the steps were over" if last["step"] + 1 == run.calibration.steps else "eta was at its bound"
