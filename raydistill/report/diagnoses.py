"""Traps and symptoms before and after a calibration: the part of report.json that a run with a `diagnosis` has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from raydistill.diagnose.verdict import is_told
from raydistill.evaluate.intervals import mean_estimate
from raydistill.report.facts import PairFacts
from raydistill.report.scores import Json

TRAPS = ("tail_noise", "off_policy_instability", "gap", "wrong_trace_preference")
SYMPTOMS = ("overconfident_hallucination", "confidence_when_wrong", "self_correction_collapse", "local_decoding_degradation", "truncated")
BASE = "base"
WORSE = {"self_correction_collapse": -1}
"""The direction in which a figure is worse, where that is not up."""
_WITHIN = {"probability": (0.0, 1.0), "share of the KL": (0.0, 1.0), "share": (0.0, 1.0), "nats a token": (0.0, math.inf)}
"""Bounds of figures by their unit, to which their intervals are cut."""
_RATIO = "ratio"
"""The unit of figures that multiply: their means and intervals are those of their logarithms."""


def diagnosis(pairs: Sequence[PairFacts]) -> Json:
    """`{"prompts", "counted": {"verifier_failures", "too_long"}, "pairs": [PAIR]}`, the base student first, with
    `{"student", "original": {name: figure}, "calibrated": {name: figure}}` for each PAIR.

    A figure is that of diagnosis.json. With two or more seeds it is the mean over seeds, its interval clusters by seed, and `n` counts
    seeds, as for all scores of a report; with one, and for the original teacher and the base student, it clusters by prompt.
    """
    first = pairs[0].original[0]
    return {
        "prompts": first["prompts"],
        "counted": _counted([found for one in pairs for found in (*one.original, *one.calibrated)]),
        "pairs": [{"student": one.student, "original": _figures(one.original), "calibrated": _figures(one.calibrated)} for one in pairs],
    }


def _counted(found: Sequence[Json]) -> Json:
    """Checks that failed, of students, and completions that were left out of the gap, of either."""
    return {
        "verifier_failures": sum(sum(one["verifier_failures"]["student"].values()) for one in found),
        "too_long": sum(sum(one["traps"]["gap"]["too_long"].values()) for one in found),
    }


def _figures(found: Sequence[Json]) -> dict[str, Json]:
    each = [headlines(one) for one in found]
    return {name: over_seeds([one[name] for one in each]) for name in (*TRAPS, *SYMPTOMS)}


def headlines(found: Json) -> dict[str, Json]:
    """The figures of a diagnosis.json that are compared: `{"value", "unit", "ci95", "n", "reference"}` or `{"not measured": why}` each.

    A figure whose value is None has `undefined` too: why."""
    traps, symptoms = found["traps"], found["symptoms"]
    sure = symptoms["overconfident_hallucination"].get("student", symptoms["overconfident_hallucination"])
    collapse, degraded = symptoms["self_correction_collapse"], symptoms["local_decoding_degradation"]["student"]
    figures = {
        **traps,
        "wrong_trace_preference": traps["gap"]["wrong_trace_preference"],
        **symptoms,
        # Of the student alone: its difference to its teacher stays where both come to repeat themselves.
        "local_decoding_degradation": degraded["repeated"],
        "truncated": degraded["truncated"],
        # Gold completions are the same for every teacher; what is cut of its own traces moves with it.
        "self_correction_collapse": collapse.get("student", {}).get("by_source", {}).get("gold", collapse),
        "confidence_when_wrong": sure.get("confidence_when_wrong", sure),
    }
    return {name: _bare(figures[name]) for name in (*TRAPS, *SYMPTOMS)}


def over_seeds(figures: Sequence[Json]) -> Json:
    """One figure of several seeds'. What one of them could not measure, or not by the same kind of wrong traces, is not measured."""
    if len(figures) == 1:
        return figures[0]
    for one in figures:
        if one.get("value") is None:
            return one
    sources = {one.get("wrong_traces") for one in figures}
    if len(sources) > 1:
        return {"not measured": "wrong traces are of one kind with some seeds and of another with others"}
    (source,) = sources
    unit, references = figures[0]["unit"], [one["reference"] for one in figures]
    reference = None if None in references else mean_estimate(references).mean
    values = [one["value"] for one in figures]
    estimate = mean_estimate([math.log(value) for value in values]).exp() if unit == _RATIO else mean_estimate(values)
    low, high = _WITHIN.get(unit, (-math.inf, math.inf))
    bounds = None if estimate.ci95 is None else [min(high, max(low, bound)) for bound in estimate.ci95]
    found = {"value": estimate.mean, "unit": unit, "ci95": bounds, "n": estimate.n, "reference": reference}
    return found if source is None else found | {"wrong_traces": source}


def moved(before: Json, after: Json) -> int | None:
    """1 where the second figure's interval lies wholly above the first's, -1 where below, 0 where they overlap.

    None where they do not compare: one has no interval, or they are by different kinds of wrong traces.
    """
    if not (is_told(before) and is_told(after)) or before.get("wrong_traces") != after.get("wrong_traces"):
        return None
    if after["ci95"][0] > before["ci95"][1]:
        return 1
    return -1 if after["ci95"][1] < before["ci95"][0] else 0


def verdicts(diagnosed: Mapping[str, Json]) -> dict[str, str]:
    """For each symptom of one student with either teacher: `worse`, `better`, `no different` where intervals overlap, `not compared`."""
    found = {}
    for name in SYMPTOMS:
        way = moved(diagnosed["original"][name], diagnosed["calibrated"][name])
        found[name] = "not compared" if way is None else {1: "worse", -1: "better", 0: "no different"}[way * WORSE.get(name, 1)]
    return found


def gap_reversals(reports: Sequence[Json]) -> list[tuple[float, float]] | None:
    """Pairs of etas between which the gap to the base student rises by more than their intervals; it is meant to fall.

    Ascending; of pairs that hold another, the inner. None where fewer than two gaps were told.
    """
    gaps = sorted(((float(one["knob"]["eta"]), one["diagnosis"]["pairs"][0]["calibrated"]["gap"]) for one in reports), key=lambda p: p[0])
    told = [(eta, gap) for eta, gap in gaps if is_told(gap)]
    if len(told) < 2:
        return None
    found = [(low, high) for (low, before), (high, after) in combinations(told, 2) if moved(before, after) == 1]
    return [one for one in found if not any(other != one and one[0] <= other[0] and other[1] <= one[1] for other in found)]


def _bare(figure: Json) -> Json:
    if "not measured" in figure:
        return {"not measured": figure["not measured"]}
    return {name: figure[name] for name in ("value", "unit", "ci95", "n", "reference", "undefined", "wrong_traces") if name in figure}
