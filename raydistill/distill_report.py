"""What a distillation comes to: the content of its report.json, and a table for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raydistill.config.distill import Distill
from raydistill.config.task import is_graded
from raydistill.evaluate.evaluation import Evaluation
from raydistill.report.scores import Json, difference, finite, mean, score, scored

if TYPE_CHECKING:
    from rich.table import Table

    from raydistill.traces import TraceSet


def distill_report(
    job: Distill,
    teacher: Evaluation | None,
    base: Evaluation,
    student: Evaluation,
    traces: TraceSet | None,
    given: int,
    rows: Sequence[Mapping[str, Any]],
    seconds: Mapping[str, float],
) -> Json:
    """The content of report.json. Intervals cluster by prompt; what was not measured is null. `given` is the number of traces there were.

    `budget.samples` counts the completions that were learnt from, each once, and `budget.tokens` the student's tokens that had a loss;
    `teacher_mass` is the mean probability of the tokens that the student was told of.
    """
    tokens = sum(row["tokens"] for row in rows)
    fresh = sum(row["fresh"] for row in rows)
    samples = job.method.batch * fresh + min(given, job.method.batch * (len(rows) - fresh))
    masses = [row["teacher_mass"] * row["tokens"] for row in rows if row["teacher_mass"] is not None]
    return {
        "run": job.name,
        "task": job.task.kind,
        "split": job.evaluation.split,
        "prompts": len(student.prompt_ids),
        "seed": job.seed,
        "method": job.method.method,
        "teacher": None if teacher is None else score([teacher]),
        "base": score([base]),
        "student": score([student]),
        "difference": difference([student], [base]),
        "style": {"teacher": teacher and teacher.styles, "base": base.styles, "student": student.styles},
        "budget": {"samples": samples, "steps": job.method.steps, "tokens": tokens},
        "traces": None if traces is None else asdict(traces.facts),
        "teacher_mass": sum(masses) / tokens if masses else None,
        "loss": {"first": finite(rows[0]["loss"]), "last": finite(mean([row["loss"] for row in rows[-10:]]))},
        "seconds": dict(seconds) | {f"step_{name}": mean([row["seconds"][name] for row in rows]) for name in rows[0]["seconds"]},
    } | ({"graded": True} if is_graded(job.task) else {})


def score_table(report: Json) -> Table:
    """Scores of the teacher and the student before and after."""
    from rich.table import Table

    title = f"{report['method']}, {scored(report)} on {report['prompts']} prompts of {report['split']}"
    table = Table("model", "sampled", "95 %", "greedy", title=title)
    for name in ("teacher", "base", "student"):
        if (scores := report[name]) is not None:
            low, high = scores["sampled"]["ci95"] or (float("nan"), float("nan"))
            table.add_row(name, f"{scores['sampled']['mean']:.3f}", f"[{low:.3f}, {high:.3f}]", f"{scores['greedy']['mean']:.3f}")
    return table
