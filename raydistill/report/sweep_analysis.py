"""What a sweep says, from the content of sweep.json: its curves, how well eta orders students, its Pareto fronts, what to choose.

A trial whose `report` is null, for it failed or was stopped, has no figures and is left out of all that is computed. Scores are
shares of right answers or mean rewards, sampled unless said otherwise; KL is KL(teacher || original) in nats a sequence.
The *first method* is that of the first students in the sweep; a trial without students of it is left out where it is asked for.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from raydistill.evaluate.intervals import paired_difference, spearman
from raydistill.report.card import KEPT_MARGIN, beyond
from raydistill.report.knob_curve import methods
from raydistill.report.scores import Json
from raydistill.report.words import interval, number, signed

ENOUGH = 0.9
"""Share of the best student's gain that a balanced teacher's student still has."""
_DIGITS = 9
"""Figures that differ in later digits alone are the same but for rounding."""
_NOISE = 10**-_DIGITS


@dataclass(frozen=True)
class Curve:
    """The trials that differ in eta alone."""

    label: str
    """The fields that differ between curves with their values, such as `learner.lr 0.001`; empty where eta alone was swept. Then what
    `changes` says."""
    trials: tuple[Json, ...]
    """In order of eta, whatever became of them."""

    @property
    def reports(self) -> list[Json]:
        return reports(self.trials)


@dataclass(frozen=True)
class Rank:
    """How well eta orders the students of one method along a curve."""

    curve: str
    method: str
    etas: int
    """How many trials it rests on."""
    sampled: float | None
    """Spearman's rank correlation of eta with the students' mean score; None where it is undefined."""
    greedy: float | None
    """The same of the greedy score."""


@dataclass(frozen=True)
class Step:
    """From one trial of a curve to the one with the next greater eta: what became of one method's students."""

    curve: str
    method: str
    below: Json
    """The trial with the smaller eta."""
    above: Json
    """The trial with the greater eta."""
    difference: float
    """Students' mean sampled score at the greater eta minus that at the smaller."""
    ci95: tuple[float, float] | None
    """Paired t interval of the difference over the seeds that both have; None with fewer than two."""

    @property
    def falls(self) -> bool:
        """Against what the knob is meant to do."""
        return self.difference < -_NOISE

    @property
    def beyond(self) -> bool:
        """Whether it falls, and its whole interval is below 0."""
        return self.falls and self.ci95 is not None and self.ci95[1] < 0


@dataclass(frozen=True)
class Point:
    """A trial that is done, and the students of the first method that it came to."""

    trial: Json
    student: Json
    """The entry of the report."""

    @property
    def teacher(self) -> Json:
        return self.trial["report"]["teacher"]

    @property
    def utility(self) -> float:
        """The calibrated teacher's own score."""
        return self.teacher["calibrated"]["sampled"]["mean"]

    @property
    def distillability(self) -> float:
        """Its students' score."""
        return self.student["calibrated"]["sampled"]["mean"]

    @property
    def gain(self) -> Json:
        """Its students' score minus that of the controls: {"mean", "ci95"}."""
        return self.student["differences"]["control"]["sampled"]

    @property
    def kl(self) -> float:
        """Infinite where it was not measured."""
        value = self.teacher["kl_per_sequence"]
        return math.inf if value is None else value


@dataclass(frozen=True)
class Fronts:
    """The points that no other one beats in one of utility and distillability without losing in the other."""

    open: tuple[Point, ...]
    """For makers of open models: both as high as can be."""
    protected: tuple[Point, ...]
    """For protectors: utility high, distillability low."""


@dataclass(frozen=True)
class Recommendation:
    """Which trial to take, for one use."""

    title: str
    trial: Json | None
    """None where none will do."""
    reason: str
    """In one sentence, with the figures it rests on."""
    basis: str
    """How it was chosen, and how many seeds stand behind it."""

    @property
    def id(self) -> str | None:
        return None if self.trial is None else self.trial["id"]


def reports(trials: Sequence[Json]) -> list[Json]:
    """Of the trials that are done."""
    return [trial["report"] for trial in trials if trial["report"] is not None]


def curves(trials: Sequence[Json]) -> list[Curve]:
    """The trials grouped by all overrides but eta, and by schedule, in order of first appearance."""
    fields = _crossed(trials)
    groups: dict[str, list[Json]] = {}
    for trial in trials:
        groups.setdefault(_label(trial, fields), []).append(trial)
    return [Curve(label, tuple(sorted(group, key=lambda trial: trial["eta"]))) for label, group in groups.items()]


def first_method(trials: Sequence[Json]) -> str | None:
    """None where no trial that is done has students."""
    return next(iter(methods(reports(trials))), None)


def points(trials: Sequence[Json]) -> list[Point]:
    """In the order of `trials`."""
    method = first_method(trials)
    return [Point(trial, student) for trial, student in _students(trials, method)]


def ranks(trials: Sequence[Json]) -> list[Rank]:
    """Spearman's rank correlation of eta with the students' score, for each curve and method."""
    return [_rank(curve, method) for curve in curves(trials) for method in methods(curve.reports)]


def steps(trials: Sequence[Json]) -> list[Step]:
    """From each eta of a curve to the next one that has students of the method, for each curve and method."""
    return [step for curve in curves(trials) for method in methods(curve.reports) for step in _steps(curve, method)]


def reversals(trials: Sequence[Json]) -> list[Step]:
    """The steps where students get worse though eta grows."""
    return [step for step in steps(trials) if step.falls]


def pareto(trials: Sequence[Json]) -> Fronts:
    """Both fronts, each in order of distillability; points that are equal in both figures are on a front together.

    Means are taken as they are: two points may be nearer to each other than their intervals are wide.
    """
    found = points(trials)
    return Fronts(open=_front(found, 1), protected=_front(found, -1))


def recommendations(trials: Sequence[Json]) -> list[Recommendation]:
    """Which trial to take, for three uses, by sampled scores of the first method's students.

    All choose among trials with `claims.teacher_kept`.
    - Best student: the highest score.
    - Protection: the lowest ratio to the control among those whose report claims `collapse`.
    - Balance: the least KL among those whose students beat the control by the paired interval and whose gain over the control
      is at least ENOUGH times that of the best student. The two gains are each over the trial's own control.

    Ties go to the smaller KL, then to the earlier trial.
    """
    found = points(trials)
    kept = [point for point in found if point.trial["report"]["claims"]["teacher_kept"]]
    chosen = (
        ("Best student", *_best_student(found, kept)),
        ("Protection at no cost to the teacher", *_protection(found, kept)),
        ("Balance", *_balance(found, kept)),
    )
    return [_recommendation(trials, title, point, reason) for title, point, reason in chosen]


def analysis(trials: Sequence[Json]) -> Json:
    """All of the above for sweep.json: trials by their ids, numbers and nulls; `spearman` and `reversals` as in `ranks` and `reversals`."""
    fronts = pareto(trials)
    return {
        "recommendations": [
            {"for": one.title, "trial": one.id, "reason": one.reason, "basis": one.basis} for one in recommendations(trials)
        ],
        "pareto": {
            name: [point.trial["id"] for point in front] for name, front in (("open", fronts.open), ("protected", fronts.protected))
        },
        "spearman": [
            {"curve": one.curve, "method": one.method, "etas": one.etas, "sampled": one.sampled, "greedy": one.greedy}
            for one in ranks(trials)
        ],
        "reversals": [
            {
                "curve": one.curve,
                "method": one.method,
                "trials": [one.below["id"], one.above["id"]],
                "difference": one.difference,
                "ci95": None if one.ci95 is None else list(one.ci95),
                "beyond": one.beyond,
            }
            for one in reversals(trials)
        ],
    }


def _crossed(trials: Sequence[Json]) -> list[str]:
    """Fields other than eta whose values differ between trials, in order of first appearance."""
    fields = dict.fromkeys(field for trial in trials for field in trial["overrides"] if field != "knob.eta")
    return [field for field in fields if len({"".join(_settings(trial, [field])) for trial in trials}) > 1]


def _label(trial: Json, fields: Sequence[str]) -> str:
    return ", ".join([*_settings(trial, fields), *changes(trial)])


def _settings(trial: Json, fields: Sequence[str]) -> list[str]:
    """A field that the trial does not override is left out."""
    overrides = trial["overrides"]
    return [f"{field} {_value(overrides[field])}" for field in fields if field in overrides]


def changes(trial: Json) -> Iterator[str]:
    """What the learner's schedule changes, such as `learner.lr 0.002 after 5 steps`."""
    before = dict(trial["overrides"])
    for change in trial.get("schedule", ()):
        now = {f"learner.{name}": value for name, value in change.items() if name != "after"}
        yield from (f"{field} {_value(value)} after {change['after']} steps" for field, value in now.items() if before.get(field) != value)
        before |= now


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.12g}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)


def _students(trials: Sequence[Json], method: str | None) -> Iterator[tuple[Json, Json]]:
    """(trial, student entry) of one method."""
    for trial in trials:
        for student in trial["report"]["students"] if trial["report"] else ():
            if student["method"] == method:
                yield trial, student


def _rank(curve: Curve, method: str) -> Rank:
    found = list(_students(curve.trials, method))
    etas = [trial["eta"] for trial, _ in found]
    sampled, greedy = ([student["calibrated"][kind]["mean"] for _, student in found] for kind in ("sampled", "greedy"))
    return Rank(curve.label, method, len(found), spearman(etas, sampled), spearman(etas, greedy))


def _steps(curve: Curve, method: str) -> Iterator[Step]:
    for (below, before), (above, after) in pairwise(_students(curve.trials, method)):
        if below["eta"] == above["eta"]:  # of a population, whose trials may come to do the same
            continue
        yield Step(curve.label, method, below, above, *_paired(after, before))


def _paired(first: Json, second: Json) -> tuple[float, tuple[float, float] | None]:
    """First minus second over the seeds that both have, or of their means where there is none."""
    values = [{row["seed"]: row["calibrated"] for row in student["per_seed"]} for student in (first, second)]
    shared = [seed for seed in values[0] if seed in values[1]]
    if not shared:
        return first["calibrated"]["sampled"]["mean"] - second["calibrated"]["sampled"]["mean"], None
    estimate = paired_difference([values[0][seed] for seed in shared], [values[1][seed] for seed in shared])
    return estimate.mean, estimate.ci95


def _front(found: Sequence[Point], sign: int) -> tuple[Point, ...]:
    front = [point for point in found if not any(_dominates(other, point, sign) for other in found)]
    return tuple(sorted(front, key=lambda point: point.distillability))


def _dominates(first: Point, second: Point, sign: int) -> bool:
    """As good in both, better in one. Distillability counts by `sign`."""
    gains = (first.utility - second.utility, sign * (first.distillability - second.distillability))
    return min(gains) >= 0 and max(gains) > 0


def _best_student(found: Sequence[Point], kept: Sequence[Point]) -> tuple[Point | None, str]:
    if not kept:
        return None, _none_kept(found)
    best = min(kept, key=lambda point: (-round(point.distillability, _DIGITS), point.kl))
    return best, (
        f"Its {best.student['method']} students score {_scored(best.student['calibrated'])}, the highest of {_trials(kept)} with the "
        f"teacher kept, against {_scored(best.student['control'])} of the control; {_cost(best)}."
    )


def _protection(found: Sequence[Point], kept: Sequence[Point]) -> tuple[Point | None, str]:
    safe = _collapsed(kept)
    if safe:
        best = min(safe, key=lambda point: (round(point.student["ratio"], _DIGITS), point.kl))
        return best, (
            f"Its {best.student['method']} students score {_ratio(best)} of the control ({_scored(best.student['calibrated'])} against "
            f"{_scored(best.student['control'])}), the least of {_trials(safe)} with collapse claimed and the teacher kept; {_cost(best)}."
        )
    if not kept:
        return None, _none_kept(found)
    if collapsed := _collapsed(found):
        return None, f"Collapse is claimed by {_trials(collapsed)}, but {_keeps_none(collapsed)}."
    known = [point for point in kept if point.student["ratio"] is not None]
    lowest = f"; the lowest ratio is {_ratio(min(known, key=lambda point: point.student['ratio']))}" if known else ""
    return None, f"No trial claims collapse, of {_trials(kept)} with the teacher kept{lowest}."


def _collapsed(found: Sequence[Point]) -> list[Point]:
    return [point for point in found if point.trial["report"]["claims"]["collapse"] and point.student["ratio"] is not None]


def _balance(found: Sequence[Point], kept: Sequence[Point]) -> tuple[Point | None, str]:
    best, reason = _best_student(found, kept)
    if best is None:
        return None, reason
    better = [point for point in kept if beyond(point.student["differences"]["control"], 1)]
    if not better:
        nearest = max(kept, key=lambda point: point.gain["mean"])
        return None, f"In none of {_trials(kept)} with the teacher kept do students beat the control; the largest gain is {_gain(nearest)}."
    enough = [point for point in better if point.gain["mean"] >= ENOUGH * best.gain["mean"] - _NOISE and math.isfinite(point.kl)]
    share = f"at least {ENOUGH:.0%} of the best student's gain of {signed(best.gain['mean'])}"
    if not enough:
        return None, f"Students beat the control in {_trials(better)} with the teacher kept, but in none with a known KL have they {share}."
    least = min(enough, key=lambda point: point.kl)
    return least, (
        f"KL {number(least.kl, 2)} nats a sequence is the least of {_trials(enough)} with the teacher kept whose "
        f"{least.student['method']} students beat the control and have {share}: "
        f"they gain {_gain(least)}, to {_scored(least.student['calibrated'])}."
    )


def _none_kept(found: Sequence[Point]) -> str:
    if not found:
        return "No trial that is done has students."
    return f"Of {_trials(found)} with students, {_keeps_none(found)}."


def _keeps_none(found: Sequence[Point]) -> str:
    bounds = [point.teacher["difference_ci95"][0] for point in found if point.teacher["difference_ci95"] is not None]
    nearest = f"{signed(max(bounds))} at best" if bounds else "not known"
    return f"none keeps its teacher: the lower bound of its score's change is {nearest}, and kept means above {signed(-KEPT_MARGIN)}"


def _recommendation(trials: Sequence[Json], title: str, point: Point | None, reason: str) -> Recommendation:
    if point is None:
        return Recommendation(title, None, reason, _basis(reports(trials), "It was looked for"))
    return Recommendation(title, point.trial, reason, _basis([point.trial["report"]], "It was chosen"))


def _basis(found: Sequence[Json], how: str) -> str:
    """The seeds and prompts that `found` rest on; empty without a report."""
    if not found:
        return ""
    seeds = _least_to_most([len(report["seeds"]) for report in found])
    prompts = _least_to_most([report["prompts"] for report in found])
    rests = f"It rests on {seeds} seed{'s' * (seeds != '1')}"
    if any(report["split"] == "report" for report in found):
        return f"{rests}. {how} on the same {prompts} prompts of the report split that its figures are quoted from."
    return f"{rests}. {how} on {prompts} prompts of the tune split; figures to quote come from the report split."


def _least_to_most(values: Sequence[int]) -> str:
    least, most = min(values), max(values)
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def _trials(found: Sequence[Point]) -> str:
    return f"{len(found)} trial{'s' * (len(found) != 1)}"


def _scored(score: Json) -> str:
    return f"{number(score['sampled']['mean'])} {interval(score['sampled']['ci95'])}"


def _gain(point: Point) -> str:
    return f"{signed(point.gain['mean'])} {interval(point.gain['ci95'], plus=True)}"


def _ratio(point: Point) -> str:
    return f"×{number(point.student['ratio'], 2)} {interval(point.student['ratio_ci95'])}"


def _cost(point: Point) -> str:
    """What it did to the teacher, in words."""
    moved, kl = point.teacher["difference"]["sampled"], point.teacher["kl_per_sequence"]
    return f"the teacher moved by {signed(moved['mean'])} {interval(moved['ci95'], plus=True)}, at a KL of {number(kl, 2)} nats a sequence"
