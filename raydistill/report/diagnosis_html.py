"""The page of a diagnosis: self-contained, like the other pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from raydistill.diagnose.verdict import figure_in_words
from raydistill.report.diagnosis_plots import by_position_svg, frequency_svg, gradients_svg, reliability_svg, tail_noise_svg
from raydistill.report.diagnosis_tail import Table, tail_tables
from raydistill.report.html import markup, render
from raydistill.report.page import FOOT, HEAD, MACROS
from raydistill.report.scores import Json

_TAIL_NOISE = "Trap: tail noise"
_WHOSE = (
    "Tokens that the teacher never writes can only teach noise; ones that it writes often are in the tail where they do not belong. The "
    "tokens themselves are in the tables above."
)
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

{% for title, sections, tables in groups %}
{% if title %}<h1>{{ title }}</h1>{% endif %}
{% for heading, explained, rows, picture, caption in sections %}
<h2>{{ heading }}</h2>
<p class="soft">{{ explained }}</p>
{% if rows %}<div class="wide"><table>
<thead><tr><th>figure</th><th>measured</th><th>n</th><th>reference</th></tr></thead>
<tbody>{% for name, one in rows %}<tr><th>{{ name }}</th><td>{{ words(one) }}</td><td>{{ one.get("n", "") }}</td>
<td>{{ one.get("reference") | number }}</td></tr>{% endfor %}</tbody>
</table></div>{% endif %}
{% if picture %}{{ figure(picture, caption) }}{% endif %}
{% for caption, columns, lines in tables.get(heading, []) %}
<p class="soft">{{ caption }}</p>
<div class="wide"><table>
<thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>
{% endfor %}
{% endfor %}
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
        groups=list(_groups(found)),
        words=figure_in_words,
        config=config,
    )


def _groups(found: Json) -> Iterator[tuple[str, list[Section], dict[str, list[Table]]]]:
    """Title, sections and their further tables: of the student and, where there is one, of that after distillation."""
    yield "", list(_sections(found["traps"], found["symptoms"])), _tables(found["traps"])
    if after := found.get("after"):
        sections = [_changed(after["differences"]), *_sections(after["traps"], after["symptoms"])]
        yield f"After distillation: {found['models']['after']}", sections, _tables(after["traps"])


def _tables(traps: Json) -> dict[str, list[Table]]:
    """By the heading of the section that they belong to."""
    return {_TAIL_NOISE: list(tail_tables(traps["tail_noise"]))}


def _changed(differences: Json) -> Section:
    names = {
        "score": "score",
        "calibration_error": "calibration error",
        "confidence_when_wrong": "mean confidence on wrong answers",
        "repeated": "repeated 4-grams",
    }
    rows = [(name, differences[key]) for key, name in names.items()]
    return "What distillation changed", "After minus before, paired by prompt. What follows is of the student after.", rows, None, ""


def _sections(traps: Json, symptoms: Json) -> Iterator[Section]:
    yield _tail_noise(traps["tail_noise"])
    if by_frequency := traps["tail_noise"].get("by_frequency"):
        caption = "By how often the teacher wrote them. Bars are shares of the whole KL, with 95 % intervals."
        yield "Whose tokens the tail is", _WHOSE, [], markup(frequency_svg(by_frequency)), caption
    yield _instability(traps["off_policy_instability"])
    if gradient := traps["off_policy_instability"].get("gradient_norm"):
        yield _gradient(gradient)
    yield _gap(traps["gap"])
    yield _overconfidence(symptoms["overconfident_hallucination"])
    if consistency := symptoms["overconfident_hallucination"].get("self_consistency"):
        yield _consistency(consistency)
    yield _self_correction(symptoms["self_correction_collapse"])
    yield _degradation(symptoms["local_decoding_degradation"])


def _tail_noise(found: Json) -> Section:
    explained = (
        "How much of the KL lies in tokens outside the teacher's k likeliest, which teach little and disturb. KL@k is the KL after those "
        "are merged into one."
    )
    if "not measured" in found:
        return _TAIL_NOISE, explained, [("share beyond k", found)], None, ""
    names = {"forward": "KL(teacher || student)", "reverse": "KL(student || teacher)"}
    rows = [(f"{names[way]}, beyond k = {k}", one) for way, shares in found["share_beyond"].items() for k, one in shares.items()]
    rows += [(f"{names[way]}, whole", curve[-1]) for way, curve in found["curve"].items()]
    picture = markup(tail_noise_svg(found["curve"], found["vocabulary"]))
    caption = f"On the teacher's traces; means and 95 % intervals. The vocabulary has {found['vocabulary']} tokens."
    return _TAIL_NOISE, explained, rows, picture, caption


def _instability(found: Json) -> Section:
    explained = (
        "A student trained on the teacher's prefixes alone meets its own when it is used. The ratio says how much worse it is there."
    )
    rows: list[Row] = [("student's prefixes / teacher's", found)]
    rows += [(name.replace("_", " "), found[name]) for name in ("teacher_prefixes", "student_prefixes") if name in found]
    growth = found.get("growth", {})
    rows += [(f"{name.replace('_', ' ')}: late half / early half of a completion", one) for name, one in growth.items()]
    if "by_position" not in found:
        return "Trap: off-policy instability", explained, rows, None, ""
    caption = "Token KL by place. Few completions are long, so that late intervals are wide."
    return "Trap: off-policy instability", explained, rows, markup(by_position_svg(found["by_position"])), caption


def _gradient(found: Json) -> Section:
    heading = "Off-policy instability: the gradient"
    explained = (
        "How long the gradient of KL(teacher || student) is from micro-batch to micro-batch, without training: a length that varies more "
        "makes steps less even. Here n counts micro-batches of the same prompts; the interval is a jackknife's."
    )
    rows: list[Row] = [("variance on the student's texts / the teacher's", found)]
    if "teacher_prefixes" not in found:
        return heading, explained, rows, None, ""
    for key, name in {"teacher_prefixes": "teacher's texts", "student_prefixes": "student's texts"}.items():
        rows += [(f"{name}: {what}", found[key][what]) for what in ("mean", "variance")]
        rows.append((f"{name}: coefficient of variation", found[key]["variation"]))
    picture = markup(gradients_svg(*(found[key]["norms"] for key in ("teacher_prefixes", "student_prefixes"))))
    return heading, explained, rows, picture, "Each point is a micro-batch: a flat line is an even gradient."


def _consistency(found: Json) -> Section:
    explained = (
        f"How sure a model is by how often it comes to the same answer among {found['samples']} completions, as many of each model. The "
        "reference of a calibration error is what noise alone would give."
    )
    names = {
        "calibration_error": "calibration error of the majority's share",
        "majority_share": "share of the majority's answer",
        "majority_right": "majority right",
        "entropy": "entropy of the answers",
    }
    rows: list[Row] = []
    for who in ("student", "teacher"):
        one = found[who]
        rows += [(who, one)] if "not measured" in one else [(f"{who}: {name}", one[key]) for key, name in names.items()]
    own, teachers = (found[who].get("bins", []) for who in ("student", "teacher"))
    picture = markup(reliability_svg(own, teachers, "share of the majority's answer among samples")) if own or teachers else None
    return "Overconfident hallucination: answers over samples", explained, rows, picture, "Numbers at the points are prompts in the bin."


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
    own = preference["own"]
    counted = f"{preference['pairs']} pairs; the teacher's own are {own['pairs']}, of {own['prompts']} prompts."
    return "Trap: the gap", f"{explained} Wrong traces: {source}, {counted}", rows, None, ""


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
        rows.append((f"{name}: overconfidence, mean confidence - share right", one["overconfidence"]))
        rows.append((f"{name}: mean confidence on wrong answers", one["confidence_when_wrong"]))
    bins = [found[name].get("bins", []) for name in ("student", "teacher")]
    picture = markup(reliability_svg(*bins)) if any(bins) else None
    return "Symptom: overconfident hallucination", explained, rows, picture, "Numbers at the points are answers in the bin."


def _self_correction(found: Json) -> Section:
    explained = (
        "Whether a model that goes on from a wrong step still ends right. The reference is its accuracy after the same beginning with that "
        "step right."
    )
    if "student" not in found:
        return "Symptom: self-correction collapse", explained, [("recovery", found)], None, ""
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
