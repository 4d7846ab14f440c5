"""The page of a diagnosis: self-contained, like the other pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydistill.diagnose.verdict import figure_in_words
from raydistill.report.diagnosis_plots import by_position_svg, reliability_svg, tail_noise_svg
from raydistill.report.html import markup, render
from raydistill.report.page import FOOT, HEAD, MACROS
from raydistill.report.scores import Json

Row = tuple[str, Json]
Section = tuple[str, str, list[Row], Any, str]
"""Heading, what it means, figures, a picture or None, its caption."""

_PAGE = (
    MACROS
    + HEAD
    + """\
<h1>{{ title }}</h1>
<p class="lead">Task {{ found.task }}, {{ found.split }} split, {{ found.prompts }} prompts, seed {{ found.seed }}. Score: teacher
{{ words(found.score.teacher) }}, student {{ words(found.score.student) }}. n counts prompts; intervals are 95 % and cluster by prompt.</p>

<h2>Verdict</h2>
{{ listed(found.verdict) }}

{% for heading, explained, rows, picture, caption in sections %}
<h2>{{ heading }}</h2>
<p class="soft">{{ explained }}</p>
<div class="wide"><table>
<thead><tr><th>figure</th><th>measured</th><th>n</th><th>reference</th></tr></thead>
<tbody>{% for name, one in rows %}<tr><th>{{ name }}</th><td>{{ words(one) }}</td><td>{{ one.get("n", "") }}</td>
<td>{{ one.get("reference") | number }}</td></tr>{% endfor %}</tbody>
</table></div>
{% if picture %}{{ figure(picture, caption) }}{% endif %}
{% endfor %}

<h2>Config</h2>
<details><summary>The resolved config</summary><pre>{{ config }}</pre></details>
"""
    + FOOT
)


def diagnosis_html(found: Json, config: str) -> str:
    """The page; `found` is the content of diagnosis.json. The same input gives the same bytes."""
    return render(
        _PAGE,
        title=f"{found['run']}: {found['models']['student']} beside {found['models']['teacher']}",
        found=found,
        sections=list(_sections(found["traps"], found["symptoms"])),
        words=figure_in_words,
        config=config,
    )


def _sections(traps: Json, symptoms: Json) -> Iterator[Section]:
    yield _tail_noise(traps["tail_noise"])
    yield _instability(traps["off_policy_instability"])
    yield _gap(traps["gap"])
    yield _overconfidence(symptoms["overconfident_hallucination"])
    yield _self_correction(symptoms["self_correction_collapse"])
    yield _degradation(symptoms["local_decoding_degradation"])


def _tail_noise(found: Json) -> Section:
    explained = (
        "How much of the KL lies in tokens outside the teacher's k likeliest, which teach little and disturb. KL@k is the KL after those "
        "are merged into one."
    )
    if "not measured" in found:
        return "Trap: tail noise", explained, [("share beyond k", found)], None, ""
    names = {"forward": "KL(teacher || student)", "reverse": "KL(student || teacher)"}
    rows = [(f"{names[way]}, beyond k = {k}", one) for way, shares in found["share_beyond"].items() for k, one in shares.items()]
    rows += [(f"{names[way]}, whole", curve[-1]) for way, curve in found["curve"].items()]
    picture = markup(tail_noise_svg(found["curve"], found["vocabulary"]))
    caption = f"On the teacher's traces; means and 95 % intervals. The vocabulary has {found['vocabulary']} tokens."
    return "Trap: tail noise", explained, rows, picture, caption


def _instability(found: Json) -> Section:
    explained = (
        "A student trained on the teacher's prefixes alone meets its own when it is used. The ratio says how much worse it is there."
    )
    rows: list[Row] = [("student's prefixes / teacher's", found)]
    rows += [(name.replace("_", " "), found[name]) for name in ("teacher_prefixes", "student_prefixes") if name in found]
    if "by_position" not in found:
        return "Trap: off-policy instability", explained, rows, None, ""
    caption = "Token KL by place; the last point holds all that follows. Few completions are long, so that late intervals are wide."
    return "Trap: off-policy instability", explained, rows, markup(by_position_svg(found["by_position"])), caption


def _gap(found: Json) -> Section:
    explained = (
        "How much less likely one model finds what the other wrote, and whether the student can tell a wrong trace from a right one."
    )
    rows: list[Row] = [("on the teacher's completions", found["on_teacher"]), ("on the student's completions", found["on_student"])]
    preference = found["wrong_trace_preference"]
    if "not measured" in preference:
        return "Trap: the gap", explained, [*rows, ("wrong-trace preference", preference)], None, ""
    source = {"own": "the teacher's own wrong traces", "corrupted": "right traces with one corrupted step"}[preference["wrong_traces"]]
    for name in ("student", "teacher"):
        rows.append((f"{name}: wrong above right, same prompt", preference[name]["paired_rate"]))
        rows.append((f"{name}: AUC, any prompt", preference[name]["auc"]))
    return "Trap: the gap", f"{explained} Wrong traces: {source}, {preference['pairs']} pairs.", rows, None, ""


def _overconfidence(found: Json) -> Section:
    explained = "Whether a model that is sure of its answer is right. The reference of a calibration error is what noise alone would give."
    if "student" not in found:
        return "Symptom: overconfident hallucination", explained, [("calibration error", found)], None, ""
    rows: list[Row] = []
    for name in ("student", "teacher"):
        one = found[name]
        if "not measured" in one:
            rows.append((f"{name}: calibration error", one))
            continue
        rows.append((f"{name}: calibration error", one["calibration_error"]))
        rows.append((f"{name}: mean confidence on wrong answers", one["confidence_when_wrong"]))
    bins = [found[name].get("bins", []) for name in ("student", "teacher")]
    picture = markup(reliability_svg(*bins)) if any(bins) else None
    return "Symptom: overconfident hallucination", explained, rows, picture, "Numbers at the points are answers in the bin."


def _self_correction(found: Json) -> Section:
    explained = (
        "Whether a model that goes on from a wrong step still ends right. The reference is its accuracy after the same beginning with that "
        "step right."
    )
    rows: list[Row] = []
    for name in ("student", "teacher"):
        one = found[name]
        rows += [(f"{name}: right after a wrong step", one["recovery"]), (f"{name}: after the same, right", one["uncorrupted"])]
        traces = {"own": "the teacher's traces", "gold": "gold completions"}
        rows += [(f"{name}: after a wrong step, in {traces[source]}", share) for source, share in one["by_source"].items()]
        rows += [
            (f"{name}: completions with a correction", one["corrections"]["rate"]),
            (f"{name}: right with a correction", one["corrections"]["right_with"]),
            (f"{name}: right without", one["corrections"]["right_without"]),
        ]
    return "Symptom: self-correction collapse", explained, rows, None, ""


def _degradation(found: Json) -> Section:
    names = {
        "repeated": "repeated 4-grams",
        "distinct": "distinct 2-grams",
        "compression_ratio": "compression ratio",
        "truncated": "truncated",
        "invalid_utf8": "invalid UTF-8",
    }
    rows: list[Row] = [("student - teacher, repeated 4-grams", found)]
    rows += [(f"{who}: {name}", found[who][key]) for key, name in names.items() for who in ("student", "teacher")]
    explained = "Completions that go round in circles, are cut off, or are no text. n of the whole-set figures counts completions."
    return "Symptom: local decoding degradation", explained, rows, None, ""
