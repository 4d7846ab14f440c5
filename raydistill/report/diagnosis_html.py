"""The page of a diagnosis: self-contained, like the other pages."""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.diagnose.verdict import figure_in_words, number_in_words
from raydistill.report.diagnosis_counts import counted
from raydistill.report.diagnosis_plots import by_position_svg, frequency_svg, gradients_svg, reliability_svg, tail_noise_svg
from raydistill.report.diagnosis_sections import Row, Section, degradation, gap, self_correction
from raydistill.report.diagnosis_tail import Table, tail_tables
from raydistill.report.html import markup, render
from raydistill.report.page import FOOT, HEAD, MACROS
from raydistill.report.scores import Json

_TAIL_NOISE = "Trap: tail noise"
_WHOSE = (
    "Tokens that the teacher never writes can only teach noise; ones that it writes often are in the tail where they do not belong. The "
    "tokens themselves are in the tables above."
)

_PAGE = (
    MACROS
    + HEAD
    + """\
<h1>{{ title }}</h1>
<p class="lead">Task {{ found.task }}, {{ found.split }} split, {{ found.prompts }} prompts, seed {{ found.seed }}. Score: teacher
{{ words(found.score.teacher) }}, student {{ words(found.score.student) }}. n counts prompts; intervals are 95 % and cluster by prompt.
A reference is the value without a trap or symptom, or, where nothing else says what that is, the teacher's.</p>
{% for sentence in counted %}<p>{{ sentence }}</p>{% endfor %}

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
<td>{{ referred(one) }}</td></tr>{% endfor %}</tbody>
</table></div>{% endif %}
{% if picture %}{{ figure(picture, caption) }}{% endif %}
{% for caption, columns, lines in tables.get(heading, []) %}
{% set folded = lines | length > 10 %}
{% if folded %}<details><summary>{{ caption }}</summary>{% else %}<p class="soft">{{ caption }}</p>{% endif %}
<div class="wide"><table>
<thead><tr>{% for column in columns %}<th>{{ column }}</th>{% endfor %}</tr></thead>
<tbody>{% for line in lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>{% endfor %}</tbody>
</table></div>{% if folded %}</details>{% endif %}
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
        counted=list(counted(found)),
        groups=list(_groups(found)),
        words=figure_in_words,
        referred=lambda one: "–" if one.get("reference") is None else number_in_words(one["reference"]),
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
        caption = "By how often the teacher wrote them. Bars are shares of KL(teacher || student), with 95 % intervals."
        yield "Whose tokens the tail is", _WHOSE, [], markup(frequency_svg(by_frequency)), caption
    yield _instability(traps["off_policy_instability"])
    if gradient := traps["off_policy_instability"].get("gradient_norm"):
        yield _gradient(gradient)
    yield gap(traps["gap"])
    yield _overconfidence(symptoms["overconfident_hallucination"])
    if consistency := symptoms["overconfident_hallucination"].get("self_consistency"):
        yield _consistency(consistency)
    yield self_correction(symptoms["self_correction_collapse"])
    yield degradation(symptoms["local_decoding_degradation"])


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
    rows: list[Row] = [("on the student's prefixes / on the teacher's", found)]
    prefixes = {f"KL(teacher || student) on the {who}'s prefixes": f"{who}_prefixes" for who in ("teacher", "student")}
    rows += [(name, found[key]) for name, key in prefixes.items() if key in found]
    growth = {f"late half / early half of a completion, {who}'s prefixes": f"{who}_prefixes" for who in ("teacher", "student")}
    rows += [(name, found["growth"][key]) for name, key in growth.items() if "growth" in found]
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


def _overconfidence(found: Json) -> Section:
    explained = (
        "Whether a model that is sure of its answer is right. The reference of a calibration error is what noise alone would give, that of "
        "the confidence on wrong answers what a calibrated model would have."
    )
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
