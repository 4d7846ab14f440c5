"""Figures of the student and the teacher beside each other, as dots with 95 % intervals; a marker says whose a dot is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from raydistill.report.scores import Json
from raydistill.report.svg import BLUE, GREY, INK, ORANGE, above, drawing, error_bar, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: dict[str, tuple[float, dict[str, Any]]] = {
    "student": (-0.16, {"fmt": "o", "color": BLUE, "mfc": BLUE}),
    "teacher": (0.16, {"fmt": "s", "color": ORANGE, "mfc": "white"}),
}
"""Place within a row of two, and look."""
_REFERENCE: dict[str, Any] = {"color": INK, "ls": (0, (1, 1)), "lw": 1.6}
Pair = Mapping[str, Json]
"""Figures by whose they are: `student`, `teacher`, or one of them alone."""


@dataclass(frozen=True)
class Panel:
    """Rows with one axis."""

    about: str
    """Of the axis."""
    rows: Mapping[str, Pair]
    within: tuple[float, float | None] | None = None
    """Ends of the axis, where the quantity has such; without an upper end it reaches as far as the dots."""


def beside(student: Mapping[str, Json], teacher: Mapping[str, Json]) -> dict[str, Pair]:
    """Rows of what both have, or one of them, under the same names."""
    both = {"student": student, "teacher": teacher}
    return {name: {who: ones[name] for who, ones in both.items() if name in ones} for name in {**student, **teacher}}


def dots_svg(panels: Sequence[Panel], label: str) -> str | None:
    """One panel below the other, without rows that have no value; None where no row has one. A dotted line is a dot's reference."""
    shown = [(one, rows) for one in panels if (rows := _measured(one.rows))]
    if not shown:
        return None
    with drawing():
        figure = new_figure(8.2, 0.3 + sum(0.5 + 0.36 * len(rows) for _, rows in shown))
        places = figure.subplots(len(shown), 1, squeeze=False, height_ratios=[len(rows) + 0.4 for _, rows in shown]).flat
        for axes, (panel, rows) in zip(places, shown, strict=True):
            _panel(axes, panel, rows)
        _legend(figure.axes[0])
        return to_svg(figure, label)


def _measured(rows: Mapping[str, Pair]) -> dict[str, Pair]:
    kept = {name: {who: one for who, one in pair.items() if one.get("value") is not None} for name, pair in rows.items()}
    return {name: pair for name, pair in kept.items() if pair}


def _panel(axes: Axes, panel: Panel, rows: Mapping[str, Pair]) -> None:
    for y, pair in enumerate(rows.values()):
        for who, one in pair.items():
            offset, look = _LOOKS[who]
            at, half = (y, 0.36) if len(pair) == 1 else (y + offset, 0.2)
            if one["reference"] is not None:
                axes.plot([one["reference"]] * 2, [at - half, at + half], **_REFERENCE)
            axes.errorbar(one["value"], at, xerr=error_bar(one["ci95"], one["value"]), **look, ms=5, capsize=2.5, elinewidth=1.2)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    for y in range(1, len(rows)):
        axes.axhline(y - 0.5, color=GREY, lw=0.3)
    axes.set_xlabel(panel.about)
    if panel.within:
        low, high = panel.within[0], panel.within[1] or axes.get_xlim()[1]
        room = 0.02 * (high - low)
        axes.set_xlim(low - room, high + room)


def _legend(axes: Axes) -> None:
    for who, (_, look) in _LOOKS.items():
        axes.errorbar([], [], xerr=[], **look, ms=5, label=who)
    axes.plot([], [], **_REFERENCE, label="reference")
    above(axes, columns=3)
