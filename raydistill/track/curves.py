"""The curves of a sweep as metrics of its run: what students and teachers of the trials come to, over eta.

MLflow's charts have steps on their x axis, which are whole numbers, and draw no line where no step is above 0. So a trial's step is
the distance of its eta from the least one of the sweep, in thousandths, or its rank where two would have one step. Beside the others,
`curve/eta` has each step's eta.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence

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
    steps = _steps({trial["eta"] for trial in result["trials"]})
    found: dict[tuple[str, int], float] = {}
    found_curves = curves(result["trials"])
    for curve, group in zip(found_curves, _groups(found_curves), strict=True):
        for eta, values in _values(curve):
            step = steps[eta]
            found["curve/eta", step] = eta
            found |= {(f"{group}/{name}", step): value for name, value in values.items()}
    return found


def _steps(etas: Collection[float]) -> dict[float, int]:
    ordered = sorted(etas)
    steps = {eta: round(1000 * (eta - ordered[0])) for eta in ordered}
    return steps if len(set(steps.values())) == len(ordered) else {eta: rank for rank, eta in enumerate(ordered)}


def _groups(of: Sequence[Curve]) -> list[str]:
    """A name for each, as MLflow takes them."""
    names = [_NOT_IN_A_NAME.sub("_", curve.label)[:_LONGEST_LABEL] for curve in of]
    digests = [hashlib.sha256(curve.label.encode()).hexdigest()[:8] for curve in of]
    apart = [name if names.count(name) == 1 else f"{name} {digest}" for name, digest in zip(names, digests, strict=True)]
    return [f"curve {name}".rstrip() for name in apart]


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
