"""The pictures of a sweep: students, teachers and KL against eta, curve by curve, and utility against distillability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from raydistill.report.knob_curve import (
    TEACHER,
    Drift,
    Line,
    Mark,
    eta_text,
    kl_points,
    knob_lines,
    legend_below,
    lines_svg,
    mark,
    methods,
    student_lines,
    teacher_points,
)
from raydistill.report.scores import Json, scored
from raydistill.report.svg import BLUE, GREY, INK, ORANGE, drawing, error_bar, new_figure, to_svg
from raydistill.report.sweep_analysis import Curve, Fronts, Point, curves, pareto, points, reports

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def curve_svgs(sweep: Json, beside: Json | None = None) -> list[str]:
    """Scores of students and teachers, and KL, against eta; empty where no trial is done.

    One picture of all methods where eta alone was swept, otherwise one a method, of all curves. The first picture has
    `beside`'s students as well, those by the first method of `sweep`.
    """
    drawn = _drawn(sweep["trials"])
    names = methods(reports(sweep["trials"]))
    if not drawn:
        return []
    others = _beside_lines(beside, names[0], used=max(len(names), len(drawn))) if beside and names else []
    if len(drawn) == 1:
        found = drawn[0].reports
        return [lines_svg([*knob_lines(found), *others], [Drift(TEACHER, kl_points(found))], scored(found[0]))]
    first, *further = names or ("",)
    return [_method_svg(drawn, first, others), *(_method_svg(drawn, method, []) for method in further)]


def pareto_svg(trials: Sequence[Json]) -> str | None:
    """Utility against distillability with 95 % intervals, a point a trial, and both fronts; None without a trial that has students."""
    found = points(trials)
    if not found:
        return None
    with drawing():
        figure = new_figure(8.2, 5.2)
        axes = figure.subplots()
        _originals(axes, found)
        _fronts(axes, pareto(trials))
        for index, curve in enumerate(_drawn(trials)):
            _points(axes, [point for point in found if point.trial in curve.trials], mark(index), curve.label)
        _eta_labels(axes, found)
        axes.margins(0.08, 0.16)
        axes.set_xlabel(f"distillability: score of its {found[0].student['method']} students")
        axes.set_ylabel("utility: score of the teacher")
        legend_below(figure, axes)
        return to_svg(figure, "Score of each trial's teacher against the score of its students, with both Pareto fronts")


def _drawn(trials: Sequence[Json]) -> list[Curve]:
    """Curves with a trial that is done; a curve's place tells its mark."""
    return [curve for curve in curves(trials) if curve.reports]


def _method_svg(drawn: Sequence[Curve], method: str, others: Sequence[Line]) -> str:
    """Several curves: a teacher has the marker and line style of its students, hollow."""
    lines, drifts = [], []
    for index, curve in enumerate(drawn):
        teacher = replace(mark(index), colour=INK, hollow=True)
        lines.append(Line(f"teacher, {curve.label}", teacher, teacher_points(curve.reports)))
        drifts.append(Drift(teacher, kl_points(curve.reports)))
    for index, curve in enumerate(drawn):
        if method in methods(curve.reports):
            lines += student_lines(curve.reports, method, mark(index), index - (len(drawn) - 1) / 2, f", {curve.label}")
    count = scored(drawn[0].reports[0])
    return lines_svg([*lines, *others], drifts, count, f"{method} students and teachers" if method else "teachers")


def _beside_lines(beside: Json, method: str, used: int) -> list[Line]:
    """Students of another sweep, told apart from `used` lines."""
    lines = []
    for index, curve in enumerate(curve for curve in curves(beside["trials"]) if method in methods(curve.reports)):
        suffix = f", {beside['sweep']}" + (f", {curve.label}" if curve.label else "")
        students, _ = student_lines(curve.reports, method, mark(used + index), index + (used + 1) / 2, suffix)
        lines.append(students)
    return lines


def _points(axes: Axes, found: Sequence[Point], look: Mark, label: str) -> None:
    students = [point.student["calibrated"]["sampled"] for point in found]
    teachers = [point.teacher["calibrated"]["sampled"] for point in found]
    x, y = ([score["mean"] for score in scores] for scores in (students, teachers))
    shape: dict[str, Any] = {"ls": "", "marker": look.marker, "color": look.colour, "ms": 6, "elinewidth": 0.8, "capsize": 2}
    axes.errorbar(x, y, xerr=_bars(students), yerr=_bars(teachers), **shape, label=label or "trial, by its eta")


def _bars(scores: Sequence[Json]) -> list[list[float]]:
    bars = [error_bar(score["ci95"], score["mean"]) for score in scores]
    return [[bar[side][0] for bar in bars] for side in (0, 1)]


def _eta_labels(axes: Axes, found: Sequence[Point]) -> None:
    """Above and below in turn, for neighbours to stay apart."""
    for index, point in enumerate(sorted(found, key=lambda point: point.distillability)):
        place: dict[str, Any] = {"xytext": (9, 8 if index % 2 == 0 else -14), "textcoords": "offset points"}
        text = axes.annotate(eta_text(point.trial["eta"]), (point.distillability, point.utility), **place, fontsize=8.5)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85})


def _fronts(axes: Axes, fronts: Fronts) -> None:
    """Rings of two shapes around the points; two kinds of line bound what is beaten by them."""
    _front(axes, fronts.open, {"marker": "o", "ms": 13, "ls": "-", "drawstyle": "steps-pre", "color": BLUE}, "front for open models")
    _front(
        axes, fronts.protected, {"marker": "s", "ms": 16, "ls": "--", "drawstyle": "steps-post", "color": ORANGE}, "front for protection"
    )


def _front(axes: Axes, front: Sequence[Point], look: dict[str, Any], label: str) -> None:
    x, y = [point.distillability for point in front], [point.utility for point in front]
    axes.plot(x, y, **look, lw=1.5, mfc="none", mew=1.1, label=label)


def _originals(axes: Axes, found: Sequence[Point]) -> None:
    """What the trials started from."""
    x = [point.student["control"]["sampled"]["mean"] for point in found]
    y = [point.teacher["original"]["sampled"]["mean"] for point in found]
    axes.plot(x, y, "x", color=GREY, ms=8, mew=1.6, label="original teacher, control students")
