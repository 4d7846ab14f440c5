"""The template of a sweep's page."""

from raydistill.report.page import FOOT, HEAD, MACROS

SWEEP = (
    MACROS
    + HEAD
    + """\
<h1>Sweep {{ sweep.sweep }}</h1>
<p class="lead">{{ counted }}{% if measured %} {{ measured }}{% endif %} Positive eta is meant to make students better, negative to make
them collapse, 0 is the placebo; the teacher is meant to keep its score.</p>
<ul class="claims">
{% for one in recommendations %}<li class="{{ "holds" if one.trial }}"><strong>{{ one.title }}</strong>
<span class="verdict">{% if one.trial %}{{ one.trial.id }}, eta {{ one.trial.eta | eta }}{% else %}none{% endif %}</span>
<p>{{ one.reason }}</p>{% if one.basis %}<p class="soft">{{ one.basis }}</p>{% endif %}</li>
{% endfor %}</ul>

{% if pictures %}<h2>The knob</h2>
{% for picture in pictures %}
{{ figure(picture, "Means with 95 % intervals, set apart sideways where they would overlap. Grey lines are the controls: the same " ~
"students distilled from the original teacher. " ~ ("Filled marks are students, hollow black ones their teachers. " if several) ~
"Right: how far the teachers moved." ~ (" " ~ beside if beside and loop.first)) }}
{% endfor %}{% endif %}
{% if orders %}<h2>Order</h2>
{{ listed(orders) }}{% endif %}

{% if front %}<h2>Utility and distillability</h2>
{{ figure(front, "A mark a trial, with 95 % intervals. Fronts go by means: of points nearer to each other than their intervals are wide, " ~
"either may be the better one.") }}
{{ listed(fronts) }}{% endif %}

<h2>Figures</h2>
<div class="wide"><table>
<thead><tr><th>trial</th>{{ report_heads(methods) }}</tr></thead>
<tbody>{% for curve in curves %}{% for trial in curve.trials %}<tr>
<th>{{ trial.id }}<small>eta {{ trial.eta | eta }}</small>{% if curve.label %}<small>{{ curve.label }}</small>{% endif %}</th>
{% if trial.report %}{{ report_cells(trial.report, methods) }}
{% else %}<td colspan="{{ 3 + 3 * methods | length }}" class="soft">
{{- trial.status }}{{ ": " ~ trial.error if trial.error }}</td>{% endif %}
</tr>{% endfor %}{% endfor %}</tbody></table></div>

<h2>What to keep in mind</h2>
{{ listed(notes) }}
{% for trial, claims, notes in details %}
{{ kept_in_mind("eta " ~ (trial.eta | eta) ~ ": " ~ trial.id, claims, notes) }}
{% endfor %}
"""
    + FOOT
)
