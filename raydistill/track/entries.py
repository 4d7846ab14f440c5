"""What a run's config, steps and report become in MLflow: flat names with numbers or short texts."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raydistill.config.run import Job
from raydistill.track.secrets import masked_uri

_NOT_IN_A_NAME = re.compile(r"[^\w./ :-]")


@dataclass(frozen=True)
class StudentEntry:
    """One student as a run of its own."""

    name: str
    params: dict[str, str]
    metrics: dict[str, float]


def run_params(run: Job) -> dict[str, str]:
    """Every field of the config under its dotted name, passwords in URIs masked."""
    return {name: masked_uri(str(value)) for name, value in _leaves(run.model_dump(mode="json"), ".")}


def step_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl, such as `task_reward`, `seconds/rollout` and `target.ratio`; and `shadow_accuracies`."""
    target = {f"target.{name}": value for name, value in (row.get("target") or {}).items()}
    plain = {name: value for name, value in row.items() if name not in ("step", "target")}
    return _numbers(plain) | target | shadow_accuracies(row.get("shadows") or {})


def shadow_accuracies(shadows: Mapping[str, Any]) -> dict[str, float]:
    """`shadow.accuracy` and `shadow.twin`: means over the shadows that were measured; of several also each, as `shadow.accuracy.0`."""
    metrics = {}
    for name in ("accuracy", "twin"):
        values = shadows.get(name) or []
        measured = {place: value for place, value in enumerate(values) if value is not None}
        if measured:
            metrics[f"shadow.{name}"] = sum(measured.values()) / len(measured)
        if len(values) > 1:
            metrics |= {f"shadow.{name}.{place}": value for place, value in measured.items()}
    return metrics


def mean_over_seeds(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, mean metrics of the seeds that got to that step)."""
    by_step: dict[int, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for name, value in step_metrics(row).items():
            by_step[row["step"]][name].append(value)
    for step in sorted(by_step):
        yield step, {name: sum(values) / len(values) for name, values in by_step[step].items()}


def report_metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """Scores, ratios, claims (1 or 0), traps and symptoms, and seconds: `teacher/calibrated/sampled`, `students/seqkd/ratio`, ...

    Beside them `eta`, where the run set it: MLflow sorts by a metric as by a number, by a param as by a text.
    Intervals and counts stay in report.json: MLflow would draw a chart of each.
    """
    parts = {name: report[name] for name in ("teacher", "baselines", "claims", "base", "student", "target", "seconds") if name in report}
    students = {student["method"]: student for student in report.get("students", [])}
    return _numbers(parts | {"students": students, "diagnosis": _diagnosed(report)} | _set_eta(report))


def _diagnosed(report: Mapping[str, Any]) -> dict[str, Any]:
    """Values by student, teacher and figure, such as `base/calibrated/gap`."""
    pairs = report.get("diagnosis", {"pairs": []})["pairs"]
    return {
        pair["student"]: {
            teacher: {name: figure["value"] for name, figure in pair[teacher].items() if figure.get("value") is not None}
            for teacher in ("original", "calibrated")
        }
        for pair in pairs
    }


def student_entries(report: Mapping[str, Any]) -> Iterator[StudentEntry]:
    """The student of every method and seed of the main job, from the calibrated teacher and, as its control, from the original one."""
    eta = _set_eta(report)
    for student in report.get("students", []):
        for row in student["per_seed"]:
            for teacher, group in (("calibrated", "calibrated"), ("original", "control")):
                metrics = eta | {"sampled": row[group], "greedy": row[f"{group}_greedy"]}
                if group == "calibrated" and row["control"]:
                    metrics["ratio"] = row["calibrated"] / row["control"]
                name = f"{student['method']}-{row['seed']}" if group == "calibrated" else f"control-{student['method']}-{row['seed']}"
                params = {"method": student["method"], "seed": str(row["seed"]), "eta": str(report["knob"]["eta"]), "teacher": teacher}
                yield StudentEntry(name, params, metrics)


def _set_eta(report: Mapping[str, Any]) -> dict[str, float]:
    """Nothing where a target moves it, which is in the steps then, or for a distillation."""
    return {"eta": report["knob"]["eta"]} if "knob" in report and "target" not in report else {}


def _numbers(tree: Any) -> dict[str, float]:
    """The numbers of nested dicts; lists are left out."""
    flat = dict(_leaves(_means(tree), "/"))
    return {_NOT_IN_A_NAME.sub("_", name): float(value) for name, value in flat.items() if isinstance(value, int | float)}


def _means(tree: Any) -> Any:
    """The same, with the mean in place of each {"mean": ..., "ci95": ...}."""
    if not isinstance(tree, dict):
        return tree
    return tree["mean"] if "mean" in tree else {name: _means(value) for name, value in tree.items()}


def _leaves(tree: Any, separator: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, value in tree.items():
            yield from _leaves(value, separator, f"{prefix}{separator}{name}" if prefix else str(name))
    elif isinstance(tree, list) and any(isinstance(item, dict) for item in tree):
        yield from _leaves({str(index): item for index, item in enumerate(tree)}, separator, prefix)
    else:
        yield prefix, tree
