"""The pictures of one run. What colour says, markers, line styles, hatches or texts say too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from raydistill.report.scores import Json, scored
from raydistill.report.svg import BLUE, GREEN, GREY, INK, ORANGE, above, drawing, error_bar, new_figure, to_svg

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES = {
    "task_reward": "Task reward",
    "cal_reward": "Calibration reward (score gap)",
    "kl_anchor": "KL(teacher || original), nats a sequence",
    "length": "Length, tokens",
    "mismatch_kl": "Mismatch KL of engine and learner, nats a token",
}
_COLUMNS = (48, 92)
"""Right edges of the two columns of numbers beside the scores, in points from the axes."""
_LINES = ("-", "--", ":", "-.")
_SHADES = {
    "rollout": "#16324f",
    "verify": "#3f6d9b",
    "shadow": "#f1d3b8",
    "score": "#7fa6cb",
    "learn": "#b9cfe4",
    "sync": "#e3ebf3",
}
_HATCHES = ("", "///", "...", "xxx", "---", "ooo")


def scores_svg(report: Json) -> str:
    """Teacher, baselines and students, sampled and greedy, with their 95 % intervals."""
    rows = list(_score_rows(report))
    with drawing():
        figure = new_figure(8.2, 0.8 + 0.42 * len(rows))
        axes = figure.subplots()
        for y, (_, score, colour) in enumerate(rows):
            _score_row(axes, y, score, colour)
        axes.set_yticks(range(len(rows)), [label for label, _, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(-0.01, 1.01)
        axes.set_xlabel(scored(report))
        axes.tick_params(axis="y", length=0)
        for x, kind in zip(_COLUMNS, ("sampled", "greedy"), strict=True):
            axes.annotate(kind, (1, 1), xycoords="axes fraction", xytext=(x, 3), textcoords="offset points", ha="right", color=GREY)
        axes.errorbar([], [], xerr=[], fmt="o", color=INK, label="sampled at temperature 1")
        axes.errorbar([], [], xerr=[], fmt="s", color=INK, mfc="white", label="greedy")
        above(axes, columns=2)
        return to_svg(figure, "Scores of the teacher, the baselines and the students with 95 % intervals")


def _score_rows(report: Json) -> Iterator[tuple[str, Json, str]]:
    teacher, baselines = report["teacher"], report["baselines"]
    yield "teacher, original", teacher["original"], GREY
    yield "teacher, calibrated", teacher["calibrated"], BLUE
    for name, label in (("base", "student before (base)"), ("sft_gold", "student, sft_gold")):
        if baselines[name] is not None:
            yield label, baselines[name], GREY
    for student in report["students"]:
        yield f"{student['method']} student, control", student["control"], GREY
        yield f"{student['method']} student, calibrated", student["calibrated"], BLUE


def _score_row(axes: Axes, y: int, score: Json, colour: str) -> None:
    for kind, offset, marker, fill in (("sampled", -0.14, "o", colour), ("greedy", 0.14, "s", "white")):
        mean, interval = score[kind]["mean"], score[kind]["ci95"]
        axes.errorbar(
            mean, y + offset, xerr=error_bar(interval, mean), fmt=marker, color=colour, mfc=fill, ms=5, capsize=2.5, elinewidth=1.2
        )
    for x, kind in zip(_COLUMNS, ("sampled", "greedy"), strict=True):
        place: Any = {"xycoords": ("axes fraction", "data"), "xytext": (x, 0), "textcoords": "offset points"}
        axes.annotate(f"{score[kind]['mean']:.3f}", (1, y), **place, ha="right", va="center")


def training_svg(rows: Mapping[int, Sequence[Json]], kl_budget: float) -> str:
    """The lines of metrics.jsonl over the steps, by seed; `kl_budget` (nats a sequence) is drawn unless it is 0 or infinite."""
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = new_figure(8.2, 6.9)
        *curves, seconds = figure.subplots(3, 2).flat
        for axes, (key, title) in zip(curves, CURVES.items(), strict=True):
            for index, (seed, lines) in enumerate(rows.items()):
                _curve(axes, lines, key, index, f"seed {seed}")
            axes.set_title(title)
            axes.yaxis.set_major_formatter("{x:g}")
            if key == "kl_anchor" and 0 < kl_budget < math.inf:
                _budget(axes, kl_budget)
        _seconds(seconds, [line for lines in rows.values() for line in lines])
        for axes in figure.axes:
            axes.margins(x=0.02)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for axes in figure.axes[-2:]:
            axes.set_xlabel("step")
        if len(rows) > 1:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=2.8)
        return to_svg(figure, "Task reward, calibration reward, KL, length, mismatch and seconds over the steps of the calibration")


def _budget(axes: Axes, kl_budget: float) -> None:
    axes.axhline(kl_budget, color=ORANGE, lw=1.2, ls=(0, (6, 2)))
    axes.annotate("budget", (0.01, kl_budget), xycoords=("axes fraction", "data"), va="top", color=ORANGE)


def _curve(axes: Axes, rows: Sequence[Json], key: str, index: int, label: str) -> None:
    values = [_number(row.get(key)) for row in rows]
    colour = (BLUE, ORANGE, INK, GREY)[index % 4]
    marker = "o" if len(rows) < 6 else ""  # a line through one step would not be seen
    axes.plot([row["step"] for row in rows], values, marker=marker, ms=4, ls=_LINES[index % 4], color=colour, lw=1.3, label=label)


def _seconds(axes: Axes, rows: Sequence[Json]) -> None:
    """Stacked, mean over seeds."""
    steps = sorted({row["step"] for row in rows})
    of_step = {step: [row.get("seconds", {}) for row in rows if row["step"] == step] for step in steps}
    shadowed = any("shadow" in row.get("seconds", {}) for row in rows)
    phases = [phase for phase in _SHADES if phase != "shadow" or shadowed]
    stacks = [[sum(s.get(phase, 0.0) for s in of_step[step]) / len(of_step[step]) for step in steps] for phase in phases]
    axes.stackplot(steps, stacks, labels=phases, colors=[_SHADES[phase] for phase in phases], edgecolor="white", lw=0.4)
    axes.set_title("Seconds a step by phase")
    # A first step may compile or load; it would flatten all others.
    totals = sorted(map(sum, zip(*stacks, strict=True)))
    axes.set_ylim(0, 1.7 * totals[len(totals) // 2] or 1)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles, labels, loc="upper right", ncols=3, handlelength=1.2, columnspacing=1.2)


def shadows_svg(rows: Mapping[int, Sequence[Json]], names: Sequence[str]) -> str | None:
    """Score of each shadow and of its twin over the steps, by seed and their mean; None where nothing was measured.

    `names` are the shadows', in the order of the config.
    """
    curves = [[_measured(rows, place, name) for name in ("accuracy", "twin")] for place in range(len(names))]
    if not any(by_step for pair in curves for by_step in pair):
        return None
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = new_figure(8.2, 2.5 * math.ceil(len(names) / 2))
        panels = figure.subplots(math.ceil(len(names) / 2), min(2, len(names)), squeeze=False).flat
        for axes, name, (own, twin) in zip(panels, names, curves, strict=False):
            _paired(axes, own, "fed by the calibrated teacher", BLUE, "-", "o")
            _paired(axes, twin, "twin, fed by the original", GREY, "--", "s")
            axes.set_title(name)
            axes.set_xlabel("step")
            axes.set_ylim(-0.01, 1.01)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        for axes in list(figure.axes)[len(names) :]:
            axes.set_visible(False)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=2, handlelength=2.8)
        return to_svg(figure, "Score of each shadow student and its twin over the steps of the calibration")


def _measured(rows: Mapping[int, Sequence[Json]], place: int, name: str) -> dict[int, list[float]]:
    """By step, the seeds' values."""
    found: dict[int, list[float]] = {}
    for row in (row for lines in rows.values() for row in lines):
        values = row.get("shadows", {}).get(name) or []
        if place < len(values) and values[place] is not None:
            found.setdefault(row["step"], []).append(values[place])
    return dict(sorted(found.items()))


def _paired(axes: Axes, by_step: Mapping[int, Sequence[float]], label: str, colour: str, line: str, marker: str) -> None:
    """The mean over seeds as a line, each seed as a point."""
    means = [sum(values) / len(values) for values in by_step.values()]
    axes.plot(list(by_step), means, color=colour, ls=line, marker=marker, ms=4, lw=1.5, label=label)
    points = [(step, value) for step, values in by_step.items() if len(values) > 1 for value in values]
    axes.plot([x for x, _ in points], [y for _, y in points], color=colour, ls="", marker=marker, ms=3, alpha=0.35)


def target_svg(rows: Mapping[int, Sequence[Json]], asked: float) -> str | None:
    """The ratio measured over the steps, and eta, by seed; None without lines."""
    if not any(rows.values()):
        return None
    from matplotlib.ticker import MaxNLocator

    with drawing():
        figure = new_figure(8.2, 4.2)
        ratios, etas = figure.subplots(2, 1, sharex=True)
        for index, (seed, lines) in enumerate(rows.items()):
            measured = [(row["step"] + 1, row["target"]["ratio"]) for row in lines if row["target"]]
            look = {"color": (BLUE, ORANGE, INK, GREY)[index % 4], "ls": _LINES[index % 4], "lw": 1.3, "label": f"seed {seed}"}
            ratios.plot([0, *(x for x, _ in measured)], [1.0, *(y for _, y in measured)], marker="o", ms=4, **look)
            etas.step([0, *(row["step"] + 1 for row in lines)], [row["eta"] for row in (*lines[:1], *lines)], where="pre", **look)
        ratios.axhline(asked, color=GREEN, lw=1.2, ls=(0, (6, 2)))
        ratios.annotate("asked", (0.99, asked), xycoords=("axes fraction", "data"), ha="right", va="bottom", color=GREEN)
        ratios.set_title("Ratio to the control, sampled")
        etas.set_title("Eta")
        etas.set_xlabel("steps done")
        etas.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        if len(rows) > 1:
            handles, labels = ratios.get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), handlelength=2.8)
        return to_svg(figure, "Measured ratio of students to the control, and eta, over the steps of the calibration")


def styles_svg(report: Json) -> str | None:
    """Shares of the styles before and after; None for a task with fewer than two."""
    rows = list(_style_rows(report))
    styles = sorted({style for _, shares in rows for style in shares})
    if len(styles) < 2:
        return None
    with drawing():
        figure = new_figure(8.2, 0.7 + 0.34 * len(rows))
        axes = figure.subplots()
        left = [0.0] * len(rows)
        for index, style in enumerate(styles):
            shares = [shares.get(style, 0.0) for _, shares in rows]
            _style_bars(axes, shares, left, index, style)
            left = [start + share for start, share in zip(left, shares, strict=True)]
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.grid(visible=False)
        axes.tick_params(axis="y", length=0)
        above(axes, columns=len(styles))
        return to_svg(figure, "Share of each style in the completions of the teacher before and after, and of the students")


def _style_rows(report: Json) -> Iterator[tuple[str, dict[str, float]]]:
    yield "teacher, original", report["teacher"]["style"]["original"]
    yield "teacher, calibrated", report["teacher"]["style"]["calibrated"]
    if report["students"]:
        yield "traces fed to students", report["teacher"]["traces"]["style"]
    for student in report["students"]:
        yield f"{student['method']} student, control", student["style"]["control"]
        yield f"{student['method']} student, calibrated", student["style"]["calibrated"]


def _style_bars(axes: Axes, shares: Sequence[float], left: Sequence[float], index: int, style: str) -> None:
    shade, hatch = ("#9fc0de", "#f1d3b8", "#dfe3e8", "#bfe0d2", "#d9cbe6", "#f3f4f6")[index % 6], _HATCHES[index % 6]
    bars = axes.barh(range(len(shares)), shares, left=left, height=0.66, color=shade, hatch=hatch, ec=INK, lw=0.5, label=style)
    texts = [f"{share:.0%}" if share >= 0.06 else "" for share in shares]
    for text in axes.bar_label(bars, texts, label_type="center", fontsize=8.5):
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85 if text.get_text() else 0.0})


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
