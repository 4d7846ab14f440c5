"""The curves of a sweep as metrics of its run: what students and teachers of the trials come to, over eta.

MLflow's charts have steps on their x axis, which are whole numbers, and draw no line where no step is above 0. So a trial's step is
the distance of its eta from the least one of the sweep, in thousandths. Beside the others, `curve/eta` has each step's eta.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from raydistill.report.scores import Json
from raydistill.report.sweep_analysis import Curve, curves

_NOT_IN_A_NAME = re.compile(r"[^\w. :-]")
_LONGEST_LABEL = 150
"""MLflow takes names of up to 250 characters."""


def curve_points(result: Json) -> dict[tuple[str, int], float]:
    """Value by metric and step, of the trials that are done; `result` is the content of sweep.json.

    The metrics are `curve/teacher`, `curve/kl`, and `curve/METHOD student` and `curve/METHOD ratio` of each method. Where more than eta
    differs between trials there is a group of them for each setting of the rest, such as `curve learner.lr 0.001/teacher`.
    """
    least = min((trial["eta"] for trial in result["trials"]), default=0.0)
    found: dict[tuple[str, int], float] = {}
    for curve in curves(result["trials"]):
        for eta, values in _values(curve):
            step = round(1000 * (eta - least))
            found["curve/eta", step] = eta
            found |= {(f"{_group(curve)}/{name}", step): value for name, value in values.items()}
    return found


def _group(curve: Curve) -> str:
    return f"curve {_NOT_IN_A_NAME.sub('_', curve.label)[:_LONGEST_LABEL]}".rstrip()


def _values(curve: Curve) -> Iterator[tuple[float, dict[str, float]]]:
    """(eta, values) of each trial that is done."""
    for trial in curve.trials:
        if (report := trial["report"]) is None:
            continue
        values = {"teacher": report["teacher"]["calibrated"]["sampled"]["mean"], "kl": report["teacher"]["kl_per_sequence"]}
        for student in report["students"]:
            values[f"{student['method']} student"] = student["calibrated"]["sampled"]["mean"]
            values[f"{student['method']} ratio"] = student["ratio"]
        yield trial["eta"], {name: value for name, value in values.items() if value is not None}
