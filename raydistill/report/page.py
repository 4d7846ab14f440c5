"""The templates of the HTML pages. They load nothing: styles and pictures are inline, and a policy forbids scripts and requests."""

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<title>{{ title }}</title>
<style>
:root { color-scheme: light; --ink: #1b1f24; --soft: #5b6470; --line: #dfe3e8; --blue: #0b5fa5; --pale: #f6f8fa }
* { box-sizing: border-box }
body { margin: 0; background: #fff; color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif }
main { max-width: 960px; margin: 0 auto; padding: 40px 24px 72px }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 4px; letter-spacing: -.01em }
h2 { font-size: 1.15rem; margin: 48px 0 12px; padding-top: 20px; border-top: 1px solid var(--line) }
p { margin: 0 0 12px; max-width: 74ch }
.lead, figcaption, .soft { color: var(--soft) }
figure { margin: 16px 0 8px }
figure svg { width: 100%; height: auto; display: block }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif !important }
figcaption { font-size: .88rem; margin-top: 6px; max-width: 84ch }
.claims { display: grid; gap: 12px; margin: 24px 0 8px; padding: 0; list-style: none }
.claims li { border: 1px solid var(--line); border-left-width: 4px; border-radius: 6px; padding: 12px 16px }
.claims li.holds { border-left-color: var(--blue) }
.claims strong { margin-right: 8px }
.verdict { font-size: .85rem; border: 1px solid currentColor; border-radius: 999px; padding: 1px 9px; color: var(--soft) }
.holds .verdict { color: #fff; background: var(--blue); border-color: var(--blue) }
.claims p { margin: 6px 0 0; font-size: .93rem; max-width: none }
.wide { overflow-x: auto; margin: 12px 0 20px }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums }
th, td { text-align: left; vertical-align: top; padding: 7px 14px 7px 0; border-bottom: 1px solid var(--line) }
thead th { font-weight: 600; border-bottom: 1.5px solid var(--ink); vertical-align: bottom }
tbody th { font-weight: 500 }
td small, th small { display: block; color: var(--soft); font-size: .82em; font-weight: 400; white-space: nowrap }
td.strong { font-weight: 650 }
td.strong small { font-weight: 400 }
pre { margin: 0; font: .84rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere }
.traces { table-layout: fixed }
.traces td { padding-right: 18px }
.traces pre { max-height: 18em; overflow: auto }
details { border: 1px solid var(--line); border-radius: 6px; padding: 10px 16px; margin: 0 0 10px; background: var(--pale) }
summary { cursor: pointer; font-weight: 600 }
details pre { margin-top: 12px }
main > ul:not(.claims) li, details li { margin-bottom: 6px; max-width: 84ch }
@media print {
  main { max-width: none; padding: 0 }
  details { border: 0 }
  .traces pre { max-height: none }
  h2 { break-after: avoid }
  figure, tr { break-inside: avoid }
}
</style>
</head>
<body>
<main>
"""

FOOT = "</main>\n</body>\n</html>\n"

MACROS = """\
{% macro score(value, kind, class="") -%}
{% if value is none %}<td class="soft">not measured</td>
{%- else %}<td class="{{ class }}">{{ value[kind].mean | number }}<small>{{ value[kind].ci95 | interval }}</small></td>{% endif %}
{%- endmacro %}
{% macro figure(svg, caption) %}<figure>{{ svg }}<figcaption>{{ caption }}</figcaption></figure>{% endmacro %}
{% macro listed(notes) %}<ul>{% for note in notes %}<li>{{ note }}</li>{% endfor %}</ul>{% endmacro %}
{% macro report_heads(methods) -%}
<th>teacher<small>moved by</small></th><th>KL</th>
{% for method in methods %}<th>{{ method }}<small>sampled</small></th><th>{{ method }}<small>greedy</small></th>
<th>ratio<small>to control</small></th>{% endfor %}<th>claimed</th>
{%- endmacro %}
{% macro report_cells(report, methods) -%}
<td>{{ report.teacher.calibrated.sampled.mean | number }}<small>{{ report.teacher.difference_ci95 | interval(plus=True) }}</small></td>
<td>{{ report.teacher.kl_per_sequence | number(2) }}</td>
{% for method in methods %}{% for student in report.students if student.method == method %}
{{ score(student.calibrated, "sampled", "strong") }}{{ score(student.calibrated, "greedy") }}
<td class="strong">×{{ student.ratio | number(2) }}<small>{{ student.ratio_ci95 | interval }}</small></td>
{% else %}<td colspan="3" class="soft">none</td>{% endfor %}{% endfor %}
<td>{% for name, holds in report.claims.items() if holds %}{{ name | replace("_", " ") }}{{ ", " if not loop.last }}
{% else %}–{% endfor %}</td>
{%- endmacro %}
{% macro measured(one) -%}
{% if "not measured" in one %}<td class="soft">not measured<small>{{ one["not measured"] }}</small></td>
{%- elif one.value is none %}<td class="soft">undefined{% if one.undefined is defined %}<small>{{ one.undefined }}</small>{% endif %}</td>
{%- else %}<td>{{ one.value | number }}<small>{{ one.ci95 | interval }}</small>{% if one.note is defined %}<small>{{ one.note }}</small>
{%- endif %}</td>{% endif %}
{%- endmacro %}
{% macro kept_in_mind(title, claims, notes) -%}
<details><summary>{{ title }}</summary>
<ul>{% for claim in claims %}
<li>{{ claim.title }}, {{ "claimed" if claim.holds else "not claimed" }}: {{ claim.sentence }}</li>
{% endfor %}</ul>{{ listed(notes) }}</details>
{%- endmacro %}
"""

RUN = (
    MACROS
    + HEAD
    + """\
<h1>{{ report.run }}: teacher calibrated {{ "for" if report.target is defined else "at" }} {{ setting }}</h1>
<p class="lead">Task {{ report.task }}, {{ report.split }} split, {{ report.prompts }} prompts,
seed{{ "s" if report.seeds | length > 1 }} {{ report.seeds | join(", ") }}. Positive eta is meant to make students better,
negative to make them collapse, 0 is the placebo; the teacher is meant to keep its score.</p>
<ul class="claims">
{% for claim in claims %}<li class="{{ "holds" if claim.holds }}"><strong>{{ claim.title }}</strong>
<span class="verdict">{{ "✓ claimed" if claim.holds else "✗ not claimed" }}</span><p>{{ claim.sentence }}</p></li>
{% endfor %}</ul>

<h2>Teacher and students</h2>
{{ figure(scores, "Mean and 95 % interval; numbers at the right are sampled and greedy. " ~ clustering) }}

{% if report.students %}<h2>Methods</h2>
<div class="wide"><table>
<thead><tr><th>method</th><th></th><th>base</th><th>sft_gold</th><th>control</th><th>calibrated</th><th>ratio</th></tr></thead>
<tbody>{% for student in report.students %}{% for kind in ("sampled", "greedy") %}<tr>
<th>{% if loop.first %}{{ student.method }}<small>{{ student.budget.samples }} samples,</small>
<small>{{ student.budget.steps }} steps</small>{% endif %}</th><td>{{ kind }}</td>
{{ score(report.baselines.base, kind) }}{{ score(report.baselines.sft_gold, kind) }}
{{ score(student.control, kind) }}{{ score(student.calibrated, kind, "strong") }}
{% if kind == "sampled" %}<td class="strong">×{{ student.ratio | number(2) }}<small>{{ student.ratio_ci95 | interval }}</small></td>
{% else %}<td>×{{ student.ratio_greedy | number(2) }}<small>{{ student.ratio_greedy_ci95 | interval }}</small></td>{% endif %}
</tr>{% endfor %}{% endfor %}</tbody></table></div>
<p class="soft">The control is the same student distilled from the original teacher with the same seed, budget and template; the ratio is
calibrated over control. Differences of the calibrated students, paired, with their 95 % intervals:</p>
<div class="wide"><table>
<thead><tr><th>method</th><th></th><th>against control</th><th>against base</th><th>against sft_gold</th></tr></thead>
<tbody>{% for student in report.students %}{% for kind in ("sampled", "greedy") %}<tr>
<th>{{ student.method if loop.first }}</th><td>{{ kind }}</td>
{% for name in ("control", "base", "sft_gold") %}{% set against = student.differences[name] %}
{% if against is none %}<td class="soft">not measured</td>
{% else %}<td>{{ against[kind].mean | signed }}<small>{{ against[kind].ci95 | interval(plus=True) }}</small></td>{% endif %}{% endfor %}
</tr>{% endfor %}{% endfor %}</tbody></table></div>
{% endif %}

<h2>What became of the teacher</h2>
<div class="wide"><table>
<thead><tr><th></th><th>original</th><th>calibrated</th></tr></thead>
<tbody>
{% for kind in ("sampled", "greedy") %}<tr><th>score, {{ kind }}</th>{{ score(report.teacher.original, kind) }}
{{ score(report.teacher.calibrated, kind) }}</tr>{% endfor %}
<tr><th>score gap of its own completions</th><td>{{ report.teacher.cal_reward.original | number(4) }}</td>
<td>{{ report.teacher.cal_reward.calibrated | number(4) }}</td></tr>
<tr><th>length, tokens</th><td>{{ report.teacher.length.original | number(1) }}</td>
<td>{{ report.teacher.length.calibrated | number(1) }}</td></tr>
<tr><th>truncated</th><td>{{ report.teacher.truncated.original | number }}</td>
<td>{{ report.teacher.truncated.calibrated | number }}</td></tr>
<tr><th>KL(teacher || original), nats a sequence</th><td>0</td><td>{{ report.teacher.kl_per_sequence | number }}</td></tr>
{% if report.students %}<tr><th>traces fed to students</th><td></td><td>{{ scored }} {{ report.teacher.traces.accuracy | number }},
{{ report.teacher.traces.length | number(1) }} tokens, {{ report.teacher.traces.truncated | number }} truncated</td></tr>{% endif %}
</tbody></table></div>
{% if styles %}{{ figure(styles, "Share of each style among the completions sampled at temperature 1.") }}{% endif %}

{% if diagnosed %}<h2>Traps and symptoms, before and after</h2>
<p class="soft">What <code>raydistill diagnose</code> measures, on the first {{ report.diagnosis.prompts }} prompts. Traps are those that
the student before distillation would meet (base); symptoms are those of students distilled from either teacher. Higher is worse, but for
self-correction, where it is better, and for off-policy instability, which also rises where the teacher's own texts have less left to teach.
A verdict is given where the intervals do not overlap. {{ left_out }}
{% if report.seeds | length > 1 %}Intervals are 95 % t intervals over the seeds' means, but for the traps with the original teacher,
of which there is one: those are over prompts.{% else %}{{ clustering }}{% endif %}</p>
<div class="wide"><table>
<thead><tr><th>student</th><th>figure</th><th>original teacher</th><th>calibrated teacher</th><th></th></tr></thead>
<tbody>{% for student, name, before, after, told in diagnosed %}<tr><th>{{ student }}</th>
<td>{{ name }}<small>{{ after.get("unit", "") }}</small></td>{{ measured(before) }}{{ measured(after) }}<td>{{ told }}</td></tr>
{% endfor %}</tbody></table></div>{% endif %}

{% if examples %}<h2>Before and after, for the same prompt</h2>
<table class="traces"><thead><tr><th style="width:24%">prompt</th><th>original</th><th>calibrated</th></tr></thead>
<tbody>{% for prompt, before, after in examples %}<tr><td><pre>{{ prompt }}</pre></td><td><pre>{{ before }}</pre></td>
<td><pre>{{ after }}</pre></td></tr>{% endfor %}</tbody></table>{% endif %}

{% if training %}<h2>The calibration, step by step</h2>
{{ figure(training, "Rewards and KL are those of the completions sampled in a step. Seconds are stacked" ~
(", mean over seeds" if report.seeds | length > 1) ~ "; slow first steps may rise above the picture.") }}{% endif %}

{% if target %}<h2>Towards the target</h2>
{{ figure(target, "Above: students distilled anew while the teacher was calibrated, over twins of the original teacher, on the tune " ~
"split; the line is what was asked for. Below: eta, as the controller moved it.") }}{% endif %}

{% if shadows %}<h2>Shadow students</h2>
{{ figure(shadows, "Students distilled during the calibration, each beside a twin that was fed by the original teacher with the same " ~
"seed, prompts and budget. Scores (" ~ scored ~ ") at temperature 1 on the tune split" ~
("; lines are means over seeds" if report.seeds | length > 1) ~ ".") }}{% endif %}

<h2>Seconds</h2>
<p>{% for name, value in report.seconds.items() %}{{ name }} {{ value | number(0) }}{{ ", " if not loop.last }}{% endfor %}</p>

<h2>What to keep in mind</h2>
{{ listed(notes) }}

<h2>Config</h2>
<details><summary>The resolved config</summary><pre>{{ config }}</pre></details>
"""
    + FOOT
)

KNOB = (
    MACROS
    + HEAD
    + """\
<h1>The knob curve</h1>
<p class="lead">{{ reports | length }} calibrations of one teacher, apart in eta alone; task {{ reports[0].task }},
{{ reports[0].split }} split, seed{{ "s" if reports[0].seeds | length > 1 }} {{ reports[0].seeds | join(", ") }}.
Positive eta is meant to make students better, negative to make them collapse, 0 is the placebo.</p>
{{ figure(curve, "Means with 95 % intervals, set apart sideways where they would overlap. Grey lines are the controls: the same students
distilled from the original teacher. Right: how far the teacher moved.") }}

<h2>Figures</h2>
<div class="wide"><table>
<thead><tr><th>eta</th>{{ report_heads(methods) }}</tr></thead>
<tbody>{% for report in reports %}<tr><th>{{ report.knob.eta | eta }}</th>
{{ report_cells(report, methods) }}</tr>{% endfor %}</tbody></table></div>
{% if diagnosed %}<h2>Traps and symptoms</h2>
{{ figure(diagnosed, "Traps are those that the student before distillation would meet; symptoms are those of students distilled from the
calibrated teachers. Grey lines: with the original teacher. Higher is worse, but for self-correction, where it is better,
and for off-policy instability, which also rises where the teacher's own texts have less left to teach. 95 % intervals.") }}
<p>{{ about_the_gap }}</p>{% endif %}
{% for method, sampled, greedy in ranks %}<p class="soft">{{ method }}: Spearman's rank correlation of eta with the students' mean score is
{{ sampled | number(2) }} sampled and {{ greedy | number(2) }} greedy, over {{ reports | length }} values of eta.</p>{% endfor %}

<h2>What to keep in mind</h2>
{% for report in reports %}
{{ kept_in_mind("eta " ~ (report.knob.eta | eta) ~ ": " ~ report.run, claims[loop.index0], notes[loop.index0]) }}
{% endfor %}
"""
    + FOOT
)
