"""Sections of the page of a diagnosis whose figures of student and teacher are set beside each other: as rows, and as dots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from raydistill.diagnose.wrong_traces import SOURCES
from raydistill.report.diagnosis_dots import Pair, Panel, beside, dots_svg
from raydistill.report.html import markup
from raydistill.report.scores import Json

Row = tuple[str, Json]
Section = tuple[str, str, list[Row], Any, str]
"""Heading, what it means, figures, a picture or None, its caption."""
_DOTS = "Dots with 95 % intervals, if any; what was not measured is left out. Dotted: a dot's reference."


def gap(found: Json) -> Section:
    explained = (
        "How much less likely one model finds what the other wrote, and whether the student can tell a wrong trace from a right one."
    )
    gaps = {"the teacher's completions, read by the student": found["on_teacher"]}
    back = {"the student's completions, read by the teacher": found["on_student"]}
    panels = [Panel("score gap, nats a byte", beside(gaps, back))]
    rows: list[Row] = [*gaps.items(), *back.items()]
    preference = found["wrong_trace_preference"]
    if "not measured" in preference:
        rows.append(("wrong-trace preference", preference))
    else:
        source = SOURCES[preference["wrong_traces"]]
        own = preference["own"]
        counted = f"{preference['pairs']} pairs; the teacher's own are {own['pairs']}, of {own['prompts']} prompts."
        explained = f"{explained} Wrong traces: {source}, {counted}"
        names = {"paired_rate": "wrong above right, same prompt", "auc": "AUC, any prompt"}
        both = beside(*({name: preference[who][key] for key, name in names.items()} for who in ("student", "teacher")))
        panels.append(Panel("probability that a wrong trace is found likelier than a right one", both, (0, 1)))
        rows += _of_both(both)
    picture = markup(dots_svg(panels, "Score gap both ways, and how often either model finds a wrong trace likelier than a right one"))
    return "Trap: the gap", explained, rows, picture, _DOTS


def self_correction(found: Json) -> Section:
    explained = (
        "Whether a model that goes on from a wrong step still ends right. The reference of this is its accuracy after the same beginning "
        "with that step right."
    )
    if "student" not in found:
        return "Symptom: self-correction collapse", explained, [("recovery", found)], None, ""
    both = beside(*(_recovery(found[who]) for who in ("student", "teacher")))
    label = "Shares of right answers of student and teacher after a wrong step, and shares of corrections"
    picture = markup(dots_svg([Panel("share", both, (0, 1))], label))
    return "Symptom: self-correction collapse", explained, _of_both(both), picture, _DOTS


def _recovery(found: Json) -> dict[str, Json]:
    traces = {"own": "the teacher's traces", "gold": "gold completions"}
    corrections = {
        "rate": "completions with a correction",
        "helped": "corrections that helped",
        "harmed": "corrections that did harm",
        "right_with": "right with a correction",
        "right_without": "right without",
    }
    return (
        {"right after a wrong step": found["recovery"], "after the same, right": found["uncorrupted"]}
        | {f"after a wrong step, in {traces[source]}": share for source, share in found["by_source"].items()}
        | {corrections[key]: one for key, one in found["corrections"].items()}
    )


def degradation(found: Json) -> Section:
    names = {
        "repeated": "repeated 4-grams",
        "distinct": "distinct 2-grams",
        "truncated": "truncated",
        "invalid_utf8": "invalid UTF-8",
    }
    shares = beside(*({name: found[who][key] for key, name in names.items()} for who in ("student", "teacher")))
    ratios = beside(*({"compression ratio": found[who]["compression_ratio"]} for who in ("student", "teacher")))
    panels = [
        Panel("student - teacher, share of 4-grams", {"repeated 4-grams": {"student": found}}),
        Panel("share", shares, (0, 1)),
        Panel("bytes before / after compression", ratios, (0, None)),
    ]
    rows: list[Row] = [("student - teacher, repeated 4-grams", found), *_of_both(shares), *_of_both(ratios)]
    explained = "Completions that go round in circles, are cut off, or are no text. n of the whole-set figures counts completions."
    picture = markup(dots_svg(panels, "Repetition, truncation and invalid text in the completions of student and teacher"))
    return "Symptom: local decoding degradation", explained, rows, picture, _DOTS


def _of_both(rows: Mapping[str, Pair]) -> list[Row]:
    return [(f"{who}: {name}", one) for name, pair in rows.items() for who, one in pair.items()]
