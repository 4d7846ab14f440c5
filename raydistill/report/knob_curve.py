"""The knob curve: what several runs that differ in eta did to students and to the teacher."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raydistill.report.scores import Json
from raydistill.report.svg import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, drawing, error_bar, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKS = (("o", "-", BLUE), ("s", "--", ORANGE), ("^", "-.", GREEN), ("v", ":", PURPLE))


def by_eta(reports: Sequence[Json]) -> list[Json]:
    return sorted(reports, key=lambda report: float(report["knob"]["eta"]))


def methods(reports: Sequence[Json]) -> list[str]:
    """In order of first appearance."""
    return list(dict.fromkeys(student["method"] for report in reports for student in report["students"]))


def eta_text(eta: float) -> str:
    """With its sign: +1, −0.5, 0."""
    return f"{eta:+g}".replace("-", "−") if eta else "0"


def student_points(reports: Sequence[Json], method: str) -> Iterator[tuple[float, Json]]:
    """(eta, student entry of the report) of one method."""
    for report in by_eta(reports):
        for student in report["students"]:
            if student["method"] == method:
                yield float(report["knob"]["eta"]), student


def knob_curve_svg(reports: Sequence[Json]) -> str:
    """Students' and teacher's scores, sampled and greedy, and the teacher's KL, against eta. Raises ValueError without a report."""
    with drawing():
        return to_svg(_figure(reports), "Scores of students and teacher against eta, sampled and greedy, and the teacher's KL")


def _figure(reports: Sequence[Json]) -> Figure:
    if not reports:
        raise ValueError("a knob curve needs at least one report")
    figure = new_figure(10.4, 4.1)
    sampled, greedy, kl = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    greedy.sharey(sampled)
    for axes, kind in ((sampled, "sampled"), (greedy, "greedy")):
        _scores(axes, reports, kind)
    sampled.set_title("Sampled at temperature 1")
    sampled.set_ylabel("share of right answers")
    greedy.set_title("Greedy")
    _kl(kl, reports)
    etas = [float(report["knob"]["eta"]) for report in by_eta(reports)]
    for axes in figure.axes:
        axes.set_xlabel("knob (eta)")
        axes.set_xticks(etas, [eta_text(eta) for eta in etas])
    handles, labels = sampled.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=len(labels), handlelength=2.8)
    return figure


def _scores(axes: Axes, reports: Sequence[Json], kind: str) -> None:
    etas = [float(report["knob"]["eta"]) for report in by_eta(reports)]
    shift = 0.012 * (max(etas) - min(etas))  # so that intervals at the same eta stay apart
    teacher = [(eta, report["teacher"]["calibrated"][kind]) for eta, report in zip(etas, by_eta(reports), strict=True)]
    _line(axes, teacher, ("D", "-", INK), "teacher", 0.0)
    names = methods(reports)
    for index, method in enumerate(names):
        points = list(student_points(reports, method))
        mark = _MARKS[index % len(_MARKS)]
        _line(
            axes,
            [(eta, student["calibrated"][kind]) for eta, student in points],
            mark,
            f"{method} student",
            shift * (index - (len(names) - 1) / 2),
        )
        controls = [student["control"][kind]["mean"] for _, student in points]
        axes.plot([eta for eta, _ in points], controls, color=GREY, lw=1, ls=mark[1], label=f"{method} control")
    axes.set_ylim(-0.02, 1.04)


def _line(axes: Axes, points: Sequence[tuple[float, Json]], mark: tuple[str, str, str], label: str, shift: float) -> None:
    marker, line, colour = mark
    etas, means = [eta + shift for eta, _ in points], [score["mean"] for _, score in points]
    bars = [error_bar(score["ci95"], score["mean"]) for _, score in points]
    below, above = ([bar[side][0] for bar in bars] for side in (0, 1))
    axes.errorbar(etas, means, yerr=[below, above], fmt=marker, ls=line, color=colour, ms=5, lw=1.5, capsize=2.5, label=label)


def _kl(axes: Axes, reports: Sequence[Json]) -> None:
    points = [(report["knob"]["eta"], report["teacher"]["kl_per_sequence"]) for report in by_eta(reports)]
    known = [(eta, value) for eta, value in points if value is not None]
    axes.plot([eta for eta, _ in known], [value for _, value in known], "D-", color=INK, ms=5, lw=1.5)
    axes.set_title("KL(teacher || original)")
    axes.set_ylabel("nats a sequence")
    axes.set_ylim(bottom=0)
