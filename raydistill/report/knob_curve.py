"""The knob curve: what several runs that differ in eta did to students and to the teacher."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydistill.report.scores import Json, scored
from raydistill.report.svg import BLUE, GREEN, GREY, INK, ORANGE, PURPLE, drawing, error_bars, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MARKERS, _LINES, _COLOURS = "os^vPX<>", ("-", "--", "-.", ":"), (BLUE, ORANGE, GREEN, PURPLE)
_WIDTH = 10.4
"""Of the picture, in inches."""
_INCH = 12.5
"""Characters of a legend to an inch."""
_HANDLE = 6
"""Characters that a line's sample in the legend and the gap beside it take the room of."""


@dataclass(frozen=True)
class Mark:
    """How a line is told from others."""

    marker: str
    line: str
    colour: str
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """Scores against eta, joined."""

    label: str
    mark: Mark
    points: Sequence[tuple[float, Json]]
    """(eta, SCORE of report.json), in order of eta."""
    offset: float = 0.0
    """How far it is set apart sideways, so that intervals at the same eta do not hide each other: 1 is a little more than their width."""
    bare: bool = False
    """Means alone, as of a control."""


@dataclass(frozen=True)
class Drift:
    """How far a teacher moved, against eta."""

    mark: Mark
    points: Sequence[tuple[float, float]]
    """(eta, KL(teacher || original) in nats a sequence), in order of eta."""


TEACHER = Mark("D", "-", INK)


def mark(index: int) -> Mark:
    """Different markers for eight lines, and different pairs of marker and line style for 32."""
    return Mark(_MARKERS[index % 8], _LINES[(index + index // 8) % 4], _COLOURS[index % 4])


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
    if not reports:
        raise ValueError("a knob curve needs at least one report")
    return lines_svg(knob_lines(reports), [Drift(TEACHER, kl_points(reports))], scored(reports[0]))


def knob_lines(reports: Sequence[Json]) -> list[Line]:
    """The teacher, and each method's students and controls."""
    lines = [Line("teacher", TEACHER, teacher_points(reports))]
    names = methods(reports)
    for index, method in enumerate(names):
        lines += student_lines(reports, method, mark(index), offset=index - (len(names) - 1) / 2)
    return lines


def student_lines(reports: Sequence[Json], method: str, look: Mark, offset: float, suffix: str = "") -> list[Line]:
    """One method's students and controls; `suffix` follows their labels."""
    points = list(student_points(reports, method))
    return [
        Line(f"{method} student{suffix}", look, [(eta, student["calibrated"]) for eta, student in points], offset),
        Line(f"{method} control{suffix}", look, [(eta, student["control"]) for eta, student in points], bare=True),
    ]


def teacher_points(reports: Sequence[Json]) -> list[tuple[float, Json]]:
    """(eta, score of the calibrated teacher)."""
    return [(float(report["knob"]["eta"]), report["teacher"]["calibrated"]) for report in by_eta(reports)]


def kl_points(reports: Sequence[Json]) -> list[tuple[float, float]]:
    """(eta, KL(teacher || original) in nats a sequence) of the runs where it was measured."""
    points = [(float(report["knob"]["eta"]), report["teacher"]["kl_per_sequence"]) for report in by_eta(reports)]
    return [(eta, value) for eta, value in points if value is not None]


def lines_svg(lines: Sequence[Line], drifts: Sequence[Drift], count: str, about: str = "students and teacher") -> str:
    """The lines' sampled and greedy scores, and the drifts, in three panels against eta.

    `count` says what a score counts, and `about` whose scores they are, for the label.
    """
    with drawing():
        return to_svg(_figure(lines, drifts, count), f"Scores of {about} against eta, sampled and greedy, and the teacher's KL")


def _figure(lines: Sequence[Line], drifts: Sequence[Drift], count: str) -> Figure:
    columns = legend_columns([line.label for line in lines], _WIDTH)
    figure = new_figure(_WIDTH, 3.9 + 0.2 * math.ceil(len(lines) / columns))
    sampled, greedy, kl = figure.subplots(1, 3, width_ratios=(1, 1, 0.8))
    greedy.sharey(sampled)
    for axes, kind in ((sampled, "sampled"), (greedy, "greedy")):
        _scores(axes, lines, kind)
    sampled.set_title("Sampled at temperature 1")
    sampled.set_ylabel(count)
    greedy.set_title("Greedy")
    _kl(kl, drifts)
    etas = _etas(lines)
    for axes in figure.axes:
        axes.set_xlabel("knob (eta)")
        axes.set_xticks(etas, [eta_text(eta) for eta in etas])
    legend_below(figure, sampled)
    return figure


def legend_below(figure: Figure, *several: Axes) -> None:
    """The legend of some axes under the whole figure, in as many columns as there is room for; labels that are too long are folded."""
    legends = [axes.get_legend_handles_labels() for axes in several]
    shown = {label: handle for handles, labels in legends for handle, label in zip(handles, labels, strict=True)}
    labels = list(shown)
    width = figure.get_figwidth()
    folded = [textwrap.fill(label, int(_INCH * width) - _HANDLE) for label in labels]
    figure.legend(list(shown.values()), folded, loc="outside lower left", ncols=legend_columns(labels, width), handlelength=2.8)


def legend_columns(labels: Sequence[str], width: float) -> int:
    """How many fit side by side into a figure of `width` inches, at least one."""
    widest = max(map(len, labels)) + _HANDLE
    return max(1, min(len(labels), int(_INCH * width) // widest))


def _etas(lines: Sequence[Line]) -> list[float]:
    return sorted({eta for line in lines for eta, _ in line.points})


def _scores(axes: Axes, lines: Sequence[Line], kind: str) -> None:
    etas = _etas(lines)
    shift = 0.012 * (max(etas) - min(etas))
    for line in lines:
        _line(axes, line, kind, shift)
    axes.set_ylim(-0.02, 1.04)


def _line(axes: Axes, line: Line, kind: str, shift: float) -> None:
    look = line.mark
    etas, means = [eta + shift * line.offset for eta, _ in line.points], [score[kind]["mean"] for _, score in line.points]
    if line.bare:
        axes.plot(etas, means, color=GREY, lw=1, ls=look.line, label=line.label)
        return
    bars = error_bars([score[kind]["ci95"] for _, score in line.points], means)
    axes.errorbar(etas, means, yerr=bars, fmt=look.marker, **drawn(look), capsize=2.5, label=line.label)


def drawn(look: Mark) -> dict[str, Any]:
    """How matplotlib is told of it, but for the marker, which its functions name differently."""
    return {"ls": look.line, "color": look.colour, "mfc": "white" if look.hollow else look.colour, "ms": 5, "lw": 1.5}


def _kl(axes: Axes, drifts: Sequence[Drift]) -> None:
    for drift in drifts:
        axes.plot([eta for eta, _ in drift.points], [kl for _, kl in drift.points], marker=drift.mark.marker, **drawn(drift.mark))
    axes.set_title("KL(teacher || original)")
    axes.set_ylabel("nats a sequence")
    axes.set_ylim(bottom=0)
