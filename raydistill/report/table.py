"""Several reports as one table on the terminal: a row for each knob setting, or for each trial of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from raydistill.report.knob_curve import methods
from raydistill.report.scores import Json
from raydistill.report.sweep_analysis import curves

_COLUMNS = ("teacher", "KL", "score gap", "traces")


def knob_table(reports: Sequence[Json]) -> Table:
    """Teacher, what its students are fed, and each method's students; scores are sampled, greedy ones in brackets."""
    names = methods(reports)
    table = Table("eta", *_COLUMNS, *names)
    for report in reports:
        table.add_row(_eta(report["knob"]["eta"]), *_cells(report, names))
    return table


def sweep_table(sweep: Json) -> Table:
    """The content of sweep.json: the same for each trial, in order of eta within each curve; without a report, its error alone."""
    grouped = curves(sweep["trials"])
    names = methods([report for curve in grouped for report in curve.reports])
    table = Table("trial", "eta", "status", *_COLUMNS, *names)
    for trial in (trial for curve in grouped for trial in curve.trials):
        table.add_row(Text(trial["id"]), _eta(trial["eta"]), _status(trial), *(_cells(trial["report"], names) if trial["report"] else ()))
    return table


def _status(trial: Mapping[str, Any]) -> Text:
    """Not read as markup: an error may hold brackets."""
    return Text(f"{trial['status']}: {trial['error']}" if trial["error"] else trial["status"])


def _eta(eta: float) -> str:
    return f"{eta:+g}"


def _cells(report: Json, names: Sequence[str]) -> Iterator[str]:
    """One of each of `_COLUMNS`, then one a method of `names`, empty where it has no students of it."""
    teacher = report["teacher"]
    yield _score(teacher["calibrated"])
    yield _number(teacher["kl_per_sequence"])
    yield "-" if teacher["cal_reward"]["calibrated"] is None else f"{teacher['cal_reward']['calibrated']:+.3f}"
    yield " ".join(f"{style} {share:.2f}" for style, share in teacher["traces"]["style"].items() if share >= 0.005)
    students = {student["method"]: _student(student) for student in report["students"]}
    yield from (students.get(name, "") for name in names)


def _student(student: Mapping[str, Any]) -> str:
    interval = student["ratio_ci95"]
    between = f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else ""
    return f"{_score(student['calibrated'])}, x{_number(student['ratio'])}{between} (x{_number(student['ratio_greedy'])})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['sampled']['mean']:.3f} ({score['greedy']['mean']:.3f})"
