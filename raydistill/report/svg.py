"""Figures as SVG to be put into a page, or PNG: the same input gives the same bytes, whatever matplotlib settings the user has."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, LIGHT = "#1b1f24", "#6b7280", "#d4d8de"
BLUE, ORANGE, GREEN, PURPLE = "#0b5fa5", "#b4530a", "#0a7d5a", "#7a4a9e"

STYLE = {
    "svg.hashsalt": "raydistill",
    "svg.fonttype": "none",  # text stays text: the browser's fonts, selectable
    "text.parse_math": False,  # a name may hold a $
    "font.size": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LIGHT,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "figure.facecolor": "white",
    "figure.constrained_layout.hspace": 0.06,
}


@contextmanager
def drawing() -> Iterator[None]:
    """Figures are made, drawn and written within."""
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE]):
        yield


def new_figure(width: float, height: float) -> Figure:
    """In inches; laid out when it is written. Not kept by pyplot, so that nothing leaks."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, label: str) -> str:
    """One `<svg>` element with an accessible label; without a date, a doctype or element ids that nothing refers to."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    text = text[text.index("<svg ") :]
    referred = set(re.findall(r"#([\w-]+)", text))
    text = re.sub(r' id="([^"]+)"', lambda found: found[0] if found[1] in referred else "", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)


def error_bar(low_high: list[float] | None, mean: float) -> list[list[float]]:
    """matplotlib's form of an interval; of no width where there is none."""
    low, high = low_high or (mean, mean)
    return [[mean - low], [high - mean]]


def error_bars(intervals: Sequence[list[float] | None], means: Sequence[float]) -> list[list[float]]:
    """The same of several points."""
    bars = [error_bar(interval, mean) for interval, mean in zip(intervals, means, strict=True)]
    return [[bar[side][0] for bar in bars] for side in (0, 1)]


def above(axes: Axes, columns: int) -> None:
    """A legend in one line above the axes."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, borderaxespad=0.2, handletextpad=0.5, columnspacing=1.6)
