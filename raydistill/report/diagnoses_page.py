"""Traps and symptoms before and after, as rows of a table and as pictures against eta."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from raydistill.diagnose.verdict import TITLES
from raydistill.diagnose.wrong_traces import SOURCES
from raydistill.report.diagnoses import BASE, SYMPTOMS, TRAPS, gap_reversals, moved, verdicts
from raydistill.report.knob_curve import Mark, by_eta, drawn, eta_text, legend_below, mark
from raydistill.report.scores import Json
from raydistill.report.svg import BLUE, GREY, drawing, error_bars, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = TITLES | {
    "wrong_trace_preference": "Wrong-trace preference",
    "confidence_when_wrong": "Confidence on wrong answers",
    "local_decoding_degradation": "Degradation: repeated 4-grams",
    "truncated": "Degradation: truncated",
}
_BASE, _CORRUPTED = Mark("o", "-", BLUE), Mark("s", "--", BLUE, hollow=True)

Row = tuple[str, str, Json, Json, str]
"""Student, figure, with the original teacher, with the calibrated one, what became of it. Figures may have a `note`."""


def rows(report: Json) -> Iterator[Row]:
    """Traps of the base student, and symptoms of the others."""
    base, *others = report["diagnosis"]["pairs"]
    for name in TRAPS:
        before, after = base["original"][name], base["calibrated"][name]
        told = {1: "higher", -1: "lower", 0: "no different", None: "not compared"}[moved(before, after)]
        yield BASE, NAMES[name], _noted(name, before), _noted(name, after), told
    for pair in others:
        words = verdicts(pair)
        for name in SYMPTOMS:
            yield pair["student"], NAMES[name], _noted(name, pair["original"][name]), _noted(name, pair["calibrated"][name]), words[name]


def _noted(name: str, figure: Json) -> Json:
    """With what it has to be read beside: whose wrong traces it is by, or how often answers are right where no step was made wrong."""
    if source := figure.get("wrong_traces"):
        return figure | {"note": f"by {SOURCES[source]}"}
    if name == "self_correction_collapse" and figure.get("reference") is not None:
        return figure | {"note": f"{figure['reference']:.3f} after the same, right"}
    return figure


def left_out(report: Json) -> str:
    """What could not be checked or scored, over all pairs; empty where there was none."""
    counts = report["diagnosis"]["counted"]
    parts = {
        "verifier_failures": "checks of students' completions and continuations failed, and count as wrong",
        "too_long": "completions were left out of the gap, as a model's context does not hold them in its own tokens",
    }
    told = [f"{counts[name]:,} {words}" for name, words in parts.items() if counts[name]]
    return f"Over all pairs {'; '.join(told)}." if told else ""


def about_the_gap(reports: Sequence[Json]) -> str:
    """Whether it moves with eta as it is meant to."""
    found = gap_reversals(reports)
    if found is None:
        return "Whether the gap falls as eta rises, as it is meant to, cannot be told: it has fewer than two values with an interval."
    if found:
        listed = ", ".join(f"from {eta_text(low)} to {eta_text(high)}" for low, high in found)
        return f"The gap is meant to fall as eta rises, and rises beyond the intervals {listed}."
    return "The gap is meant to fall as eta rises; nowhere does it rise by more than the intervals."


def against_eta_svg(reports: Sequence[Json]) -> str:
    """Every trap of the base student and every symptom of the others against eta; a figure that no run could measure is left out."""
    ordered = by_eta(reports)
    panels = [(name, lines) for name in (*TRAPS, *SYMPTOMS) if (lines := list(_lines(ordered, name)))]
    with drawing():
        figure = new_figure(10.4, 0.6 + 2.5 * -(-len(panels) // 3))
        axes = list(figure.subplots(-(-len(panels) // 3), 3, squeeze=False).flat)
        for place, (name, lines) in zip(axes, panels, strict=False):
            _panel(place, name, lines)
            place.set_xticks([_eta(one) for one in ordered], [eta_text(_eta(one)) for one in ordered])
        for unused in axes[len(panels) :]:
            unused.set_visible(False)
        legend_below(figure, *axes[: len(panels)])
        return to_svg(figure, "Traps of the base student and symptoms of distilled students against eta, with 95 % intervals")


Line = tuple[str, Mark, bool, list[tuple[float, Json]]]
"""Label, look, whether it is of the original teacher, and (eta, figure)."""


def _lines(reports: Sequence[Json], name: str) -> Iterator[Line]:
    students = [pair["student"] for pair in reports[0]["diagnosis"]["pairs"]]
    shown = students[:1] if name in TRAPS else students[1:]
    for index, student in enumerate(shown):
        for which, of in (("calibrated", "student"), ("original", "control")):
            points = [(_eta(one), pair[which][name]) for one in reports for pair in one["diagnosis"]["pairs"] if pair["student"] == student]
            points = [(eta, figure) for eta, figure in points if figure.get("value") is not None]
            label = f"base student, {which} teacher" if name in TRAPS else f"{student} {of}"
            for source, some in _by_source(points):
                look = mark(index) if name in SYMPTOMS else _CORRUPTED if source in ("corrupted", "gold") else _BASE
                yield f"{label}, by {SOURCES[source]}" if source else label, look, which == "original", some


def _by_source(points: Sequence[tuple[float, Json]]) -> Iterator[tuple[str | None, list[tuple[float, Json]]]]:
    """Etas whose wrong traces are of one kind: figures by the teacher's own and by corrupted ones are not joined by a line."""
    for source in dict.fromkeys(figure.get("wrong_traces") for _, figure in points):
        yield source, [(eta, figure) for eta, figure in points if figure.get("wrong_traces") == source]


def _panel(axes: Axes, name: str, lines: Sequence[Line]) -> None:
    for label, look, original, points in lines:
        etas, values = [eta for eta, _ in points], [figure["value"] for _, figure in points]
        if original:
            axes.plot(etas, values, color=GREY, lw=1, ls=look.line, label=label)
            continue
        bars = error_bars([figure["ci95"] for _, figure in points], values)
        axes.errorbar(etas, values, yerr=bars, fmt=look.marker, **drawn(look), capsize=2.5, label=label)
    axes.set_title(NAMES[name])
    axes.set_ylabel(lines[0][3][0][1]["unit"])
    axes.set_xlabel("knob (eta)")


def _eta(report: Json) -> float:
    return float(report["knob"]["eta"])
