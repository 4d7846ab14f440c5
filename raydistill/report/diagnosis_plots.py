"""The pictures of a diagnosis. What colour says, markers, line styles and texts say too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydistill.report.scores import Json
from raydistill.report.svg import BLUE, GREY, INK, ORANGE, above, drawing, error_bars, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: tuple[dict[str, Any], dict[str, Any]] = ({"color": BLUE, "ls": "-", "marker": "o"}, {"color": ORANGE, "ls": "--", "marker": "s"})
_SIZE = (8.2, 3.2)


def tail_noise_svg(curve: Json, vocabulary: int) -> str:
    """KL@k over k, both directions."""
    with drawing():
        figure = new_figure(*_SIZE)
        axes = figure.subplots()
        labels = {"forward": "KL(teacher || student)", "reverse": "KL(student || teacher)"}
        for (direction, label), look in zip(labels.items(), _LOOKS, strict=True):
            _line(axes, [row["k"] for row in curve[direction]], curve[direction], label, look)
        axes.set_xscale("log")
        axes.set_ylim(bottom=0)
        ticks = [row["k"] for row in curve["forward"]]
        axes.set_xticks(ticks, [str(k) if k < vocabulary else f"all {k}" for k in ticks])
        axes.minorticks_off()
        axes.set_xlabel("k, tokens that are told apart")
        axes.set_ylabel("KL@k, nats a token")
        above(axes, columns=2)
        return to_svg(figure, "KL at k of teacher and student over k, in both directions, with 95 % intervals")


def by_position_svg(by_position: Json) -> str:
    """Token KL over the place in the completion, on both kinds of prefixes."""
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = new_figure(*_SIZE)
        axes = figure.subplots()
        labels = {"teacher_prefixes": "on the teacher's prefixes", "student_prefixes": "on the student's prefixes"}
        for (name, label), look in zip(labels.items(), _LOOKS, strict=True):
            _line(axes, [row["position"] for row in by_position[name]], by_position[name], label, look)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("place in the completion, tokens")
        axes.set_ylabel("KL(teacher || student), nats a token")
        above(axes, columns=2)
        return to_svg(
            figure, "Token KL over the place in the completion on prefixes of the teacher and of the student, with 95 % intervals"
        )


def reliability_svg(student: Sequence[Json], teacher: Sequence[Json]) -> str:
    """Share of right answers over confidence; numbers are answers in the bin."""
    with drawing():
        figure = new_figure(_SIZE[0], 3.6)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="as sure as right")
        for bins, label, look, offset in ((student, "student", _LOOKS[0], -12), (teacher, "teacher", _LOOKS[1], 6)):
            axes.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], **look, lw=1.4, ms=5, label=label)
            for one in bins:
                place = (one["confidence"], one["accuracy"])
                axes.annotate(str(one["n"]), place, xytext=(0, offset), textcoords="offset points", ha="center", fontsize=8, color=INK)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.09, 1.12)
        axes.set_xlabel("confidence: probability of the answer given the trace")
        axes.set_ylabel("share of right answers")
        above(axes, columns=3)
        return to_svg(figure, "Share of right answers over confidence for student and teacher")


def _line(axes: Axes, xs: Sequence[float], rows: Sequence[Json], label: str, look: dict[str, Any]) -> None:
    """A curve with its interval as bars; a figure without one is a point alone."""
    values = [row["value"] for row in rows]
    errors = error_bars([row["ci95"] for row in rows], values)
    axes.errorbar(xs, values, yerr=errors, **look, lw=1.4, ms=5, capsize=2.5, elinewidth=1, label=label)
