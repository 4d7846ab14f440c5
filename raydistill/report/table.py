"""Several reports as one table on the terminal, a row for each knob setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from raydistill.report.knob_curve import methods
from raydistill.report.scores import Json


def knob_table(reports: Sequence[Json]) -> Table:
    """Teacher, what its students are fed, and each method's students; scores are sampled, greedy ones in brackets."""
    table = Table("eta", "teacher", "KL", "score gap", "traces", *methods(reports))
    for report in reports:
        teacher = report["teacher"]
        table.add_row(
            f"{report['knob']['eta']:+g}",
            _score(teacher["calibrated"]),
            f"{teacher['kl_per_sequence']:.2f}",
            "-" if teacher["cal_reward"]["calibrated"] is None else f"{teacher['cal_reward']['calibrated']:+.3f}",
            " ".join(f"{style} {share:.2f}" for style, share in teacher["traces"]["style"].items() if share >= 0.005),
            *map(_student, report["students"]),
        )
    return table


def _student(student: Mapping[str, Any]) -> str:
    interval = student["ratio_ci95"]
    between = f" [{_number(interval[0])}, {_number(interval[1])}]" if interval else ""
    return f"{_score(student['calibrated'])}, x{_number(student['ratio'])}{between} (x{_number(student['ratio_greedy'])})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['sampled']['mean']:.3f} ({score['greedy']['mean']:.3f})"
