"""The pictures of a diagnosis. What colour says, markers, line styles and texts say too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from raydistill.report.scores import Json
from raydistill.report.svg import BLUE, GREY, INK, ORANGE, above, drawing, error_bars, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: dict[str, dict[str, Any]] = {
    "student": {"color": BLUE, "ls": "-", "marker": "o"},
    "teacher": {"color": ORANGE, "ls": "--", "marker": "s", "mfc": "white"},
}
"""The same in all pictures: hollow squares are the teacher's."""
_BARS = {"never": (INK, ""), "rare": (ORANGE, "///"), "common": (BLUE, "...")}
_SIZE = (8.2, 3.2)


def tail_noise_svg(curve: Json, vocabulary: int) -> str:
    """KL@k over k, both directions."""
    with drawing():
        figure = new_figure(*_SIZE)
        axes = figure.subplots()
        labels = {"forward": "KL(teacher || student)", "reverse": "KL(student || teacher)"}
        for (direction, label), look in zip(labels.items(), _LOOKS.values(), strict=True):
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
        for who, look in _LOOKS.items():
            rows = by_position[f"{who}_prefixes"]
            _line(axes, [row["position"] for row in rows], rows, f"on the {who}'s prefixes", look)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("place in the completion, tokens")
        axes.set_ylabel("KL(teacher || student), nats a token")
        above(axes, columns=2)
        return to_svg(
            figure, "Token KL over the place in the completion on prefixes of the teacher and of the student, with 95 % intervals"
        )


def frequency_svg(by_frequency: Json) -> str:
    """Shares of the KL beyond each k, by how often tokens are written: bars that are told apart by their hatching."""
    with drawing():
        figure = new_figure(_SIZE[0], 2.8)
        axes = figure.subplots()
        places = range(len(by_frequency))
        for at, (name, (colour, hatch)) in enumerate(_BARS.items()):
            ones = [classes[name] for classes in by_frequency.values()]
            xs = [place + (at - 1) * 0.27 for place in places]
            axes.bar(xs, [one["value"] for one in ones], 0.25, color="white", edgecolor=colour, hatch=hatch, label=name)
            _error_bars(axes, xs, ones)
        axes.set_xticks(list(places), [f"beyond k = {k}" for k in by_frequency])
        axes.set_ylim(bottom=0)
        axes.set_ylabel("share of the KL")
        above(axes, columns=3)
        return to_svg(figure, "Share of the KL beyond k of tokens that the teacher writes never, rarely and often, with 95 % intervals")


def gradients_svg(on_teacher: Sequence[float], on_student: Sequence[float]) -> str:
    """The gradient's length for each micro-batch, in order of length."""
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = new_figure(_SIZE[0], 2.8)
        axes = figure.subplots()
        for who, norms in (("student", on_student), ("teacher", on_teacher)):
            axes.plot(range(1, len(norms) + 1), sorted(norms), **_LOOKS[who], lw=1.4, ms=5, label=f"on the {who}'s texts")
        axes.set_ylim(0, 1.08 * max(*on_teacher, *on_student))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("micro-batches, from the shortest gradient on")
        axes.set_ylabel("length of the gradient")
        above(axes, columns=2)
        return to_svg(figure, "Length of the gradient for each micro-batch on texts of the teacher and of the student, sorted")


def reliability_svg(
    student: Sequence[Json], teacher: Sequence[Json], confidence: str = "confidence: probability of the answer given the trace"
) -> str:
    """Share of right answers over confidence, whose axis says what it is; numbers are answers in the bin."""
    with drawing():
        figure = new_figure(_SIZE[0], 3.6)
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=GREY, lw=1, ls=":", label="as sure as right")
        for bins, who, offset in ((student, "student", -12), (teacher, "teacher", 6)):
            axes.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], **_LOOKS[who], lw=1.4, ms=5, label=who)
            for one in bins:
                place = (one["confidence"], one["accuracy"])
                axes.annotate(str(one["n"]), place, xytext=(0, offset), textcoords="offset points", ha="center", fontsize=8, color=INK)
        axes.set_xlim(-0.02, 1.02)
        axes.set_ylim(-0.09, 1.12)
        axes.set_xlabel(confidence)
        axes.set_ylabel("share of right answers")
        above(axes, columns=3)
        return to_svg(figure, "Share of right answers over confidence for student and teacher")


def _line(axes: Axes, xs: Sequence[float], rows: Sequence[Json], label: str, look: dict[str, Any]) -> None:
    """A curve with its interval as bars; a figure without one is a point alone."""
    axes.errorbar(xs, [row["value"] for row in rows], yerr=_errors(rows), **look, lw=1.4, ms=5, capsize=2.5, elinewidth=1, label=label)


def _error_bars(axes: Axes, xs: Sequence[float], rows: Sequence[Json]) -> None:
    axes.errorbar(xs, [row["value"] for row in rows], yerr=_errors(rows), fmt="none", ecolor=INK, capsize=2.5, elinewidth=1)


def _errors(rows: Sequence[Json]) -> list[list[float]]:
    return error_bars([row["ci95"] for row in rows], [row["value"] for row in rows])
