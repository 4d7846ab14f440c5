"""Which trap dominates and what to try, each sentence with the figure it rests on. Rules of thumb of ours; the paper has none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydistill.diagnose.wrong_traces import SOURCES

Json = dict[str, Any]

TELLING = {"tail_noise": 0.1, "off_policy_instability": 1.5, "gap": 0.05}
"""Levels from which a trap counts: share of the KL beyond k = 50 (10 for a small vocabulary); ratio of token KLs; nats a byte."""
TITLES = {
    "tail_noise": "Tail noise",
    "off_policy_instability": "Off-policy instability",
    "gap": "The teacher-student gap",
    "overconfident_hallucination": "Overconfident hallucination",
    "self_correction_collapse": "Self-correction collapse",
    "local_decoding_degradation": "Local decoding degradation",
}
_BY = {"overconfident_hallucination": 0.05, "local_decoding_degradation": 0.01}
"""By how much a symptom must surely exceed its reference to be named: with many prompts less is sure, and means nothing."""
_DIFFERENCES = {
    "score": "score",
    "calibration_error": "calibration error",
    "confidence_when_wrong": "confidence on wrong answers",
    "repeated": "repeated 4-grams",
}
_FAR = 3.0
"""Ratio of token KLs from which all of a student's completions should be its own."""


def dominant(traps: Json) -> str | None:
    """The trap that exceeds its level most, as a multiple of it, by the lower bound of its interval; None where none exceeds it."""
    excess = {name: _surely(traps[name]) / level for name, level in TELLING.items()}
    worst = max(excess, key=lambda name: excess[name])
    return worst if excess[worst] > 1 else None


def verdict(diagnosis: Json) -> list[str]:
    """Sentences: the trap that dominates, what to try against it, and what symptoms there are."""
    traps = diagnosis["traps"]
    worst = dominant(traps)
    about = [*_about_the_worst(traps, worst), *_about_wrong_traces(traps["gap"]), *_about_symptoms(diagnosis["symptoms"])]
    return [*about, *(_about_the_student_after(diagnosis["after"]) if "after" in diagnosis else ())]


def figure_in_words(figure: Json) -> str:
    """`0.123 [0.100, 0.146] nats a byte`, or why it was not measured or has no value."""
    if "not measured" in figure:
        return f"not measured: {figure['not measured']}"
    if figure["value"] is None:
        return f"undefined: {figure['undefined']}"
    bounds = "" if figure["ci95"] is None else f" [{', '.join(map(number_in_words, figure['ci95']))}]"
    return f"{number_in_words(figure['value'])}{bounds} {figure['unit']}"


def number_in_words(value: float) -> str:
    """Three places; of what would be 0.000 without being 0, the size."""
    return f"{value:.3f}" if value == 0 or abs(value) >= 5e-4 else f"{value:.0e}"


def _surely(figure: Json) -> float:
    """The lower bound; a value without an interval proves nothing."""
    return figure["ci95"][0] if is_told(figure) else 0.0


def _about_the_worst(traps: Json, worst: str | None) -> Iterator[str]:
    untold = [name for name in TELLING if not is_told(traps[name])]
    if worst is None:
        told = [name for name in TELLING if name not in untold]
        shown = "; ".join(f"{TITLES[name].lower()} {figure_in_words(traps[name])} (level {TELLING[name]:g})" for name in told)
        yield f"No trap is surely above its level: {shown}." if told else "No trap could be told."
    else:
        found = f"dominates{' among the traps that could be told' if untold else ''}: {figure_in_words(traps[worst])}"
        yield f"{TITLES[worst]} {found}, where {TELLING[worst]:g} would count."
    if untold:
        why = "; ".join(f"{TITLES[name].lower()} {_why_untold(traps[name])}" for name in untold)
        yield f"Whether {'one is above it' if worst is None else 'another is larger'} is not known: {why}."
    if worst is not None:
        yield {"tail_noise": _against_tail_noise, "off_policy_instability": _against_instability, "gap": _against_gap}[worst](traps)


def _why_untold(figure: Json) -> str:
    words = figure_in_words(figure)
    return words if figure.get("value") is None else f"{words}, without an interval"


def is_told(figure: Json) -> bool:
    """Whether it has a value with an interval: without one nothing is sure of it."""
    return figure.get("value") is not None and figure["ci95"] is not None


def _against_tail_noise(traps: Json) -> str:
    k = traps["tail_noise"]["k"]
    loss = next(row for row in traps["tail_noise"]["losses"] if row["k"] == k)
    seen, whole, without = (figure_in_words(loss[name]) for name in ("tail_bucket", "whole", "renormalised"))
    return (
        f"Try `kd` with method.top_k={k}: beyond the teacher's top {k} the student is told a sum alone, and its loss is {seen} instead "
        f"of {whole}. Keep the bucket for the tail: renormalised over the top {k} it would be {without}."
    )


def _against_instability(traps: Json) -> str:
    share = 1.0 if traps["off_policy_instability"]["value"] >= _FAR else 0.5
    own = figure_in_words(traps["off_policy_instability"]["student_prefixes"])
    return f"Try `gkd` with method.on_policy={share:g}: on its own prefixes the student is {own} from the teacher."


def _against_gap(traps: Json) -> str:
    back = figure_in_words(traps["gap"]["on_student"])
    return f"Calibrate the teacher towards small models first, with knob.eta=1: on the student's own texts the gap is {back}."


def _about_wrong_traces(gap: Json) -> Iterator[str]:
    preference = gap["wrong_trace_preference"]
    if "not measured" in preference or preference["ci95"] is None:
        return
    low, high = preference["ci95"]
    finds = "mostly prefers the right one" if high < 0.5 else "prefers the wrong one" if low > 0.5 else "surely prefers neither"
    kind = SOURCES[preference["wrong_traces"]]
    yield f"Of a wrong and a right trace the student {finds}: wrong above right {figure_in_words(preference)}, by {kind}."


def _about_symptoms(symptoms: Json) -> Iterator[str]:
    calibration = symptoms["overconfident_hallucination"]
    if _surely(calibration) > (calibration.get("reference") or 0) + _BY["overconfident_hallucination"]:
        student, floor = calibration["student"], calibration["reference"]
        wrong = figure_in_words(student["confidence_when_wrong"])
        yield (
            f"{_sign_of_confidence(student['overconfidence'])}, by {figure_in_words(student['overconfidence'])}: calibration error "
            f"{figure_in_words(calibration)}, where noise alone gives {floor:.3f}; mean confidence on wrong answers {wrong}."
        )
    yield from _about_recovery(symptoms["self_correction_collapse"])
    if _surely(symptoms["local_decoding_degradation"]) > _BY["local_decoding_degradation"]:
        yield f"It repeats itself more than the teacher: {figure_in_words(symptoms['local_decoding_degradation'])}."


def _sign_of_confidence(overconfidence: Json) -> str:
    low, high = overconfidence["ci95"] or (0.0, 0.0)
    return "It is overconfident" if low > 0 else "It is underconfident" if high < 0 else "Its confidence is off, not surely to one side"


def _about_the_student_after(after: Json) -> Iterator[str]:
    """What distillation has surely changed, then its traps and symptoms."""
    changed = [
        f"{name} by {figure_in_words(after['differences'][key])}"
        for key, name in _DIFFERENCES.items()
        if (bounds := after["differences"][key].get("ci95")) and not bounds[0] <= 0 <= bounds[1]
    ]
    untold = [name for key, name in _DIFFERENCES.items() if not after["differences"][key].get("ci95")]
    yield f"Distillation changed {'; '.join(changed)}." if changed else "No change by distillation is sure."
    if untold:
        yield f"Whether it changed {', '.join(untold)} is not known."
    for sentence in verdict({name: after[name] for name in ("traps", "symptoms")}):
        yield f"After distillation: {sentence}"


def _about_recovery(collapse: Json) -> Iterator[str]:
    """Intervals that do not overlap: a weaker claim than that of a paired difference needs, and a safe one."""
    if "student" not in collapse:
        return
    student, teacher = collapse["student"]["recovery"], collapse["teacher"]["recovery"]
    if student.get("ci95") and teacher.get("ci95") and student["ci95"][1] < teacher["ci95"][0]:
        after_right = [f"{collapse[who]['recovery']['reference']:.3f}" for who in ("student", "teacher")]
        yield (
            f"It finds back from a wrong step less often than the teacher: {figure_in_words(student)} against {figure_in_words(teacher)}; "
            f"right after the same step without the slip: {' against '.join(after_right)}."
        )
