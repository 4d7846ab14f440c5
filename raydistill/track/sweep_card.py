"""The model card of a trial's teacher."""

from __future__ import annotations

from collections.abc import Iterator

from raydistill.report.knob_curve import eta_text
from raydistill.report.scores import Json, scored
from raydistill.report.sweep_analysis import changes
from raydistill.report.words import claims_in_words, interval, notes, number
from raydistill.track.secrets import masked_uri


def sweep_card(trial: Json, sweep: str) -> str:
    """Markdown. `trial` is the entry, in sweep.json, of one that is done."""
    return "\n".join([*_settings(trial, sweep), *_scores(trial["report"]), *_words(trial["report"])]) + "\n"


def _settings(trial: Json, sweep: str) -> Iterator[str]:
    report = trial["report"]
    yield f"# Teacher of {sweep} at eta {eta_text(trial['eta'])}"
    yield ""
    yield f"A teacher calibrated by raydistill, trial `{trial['id']}` of the sweep `{sweep}`. In it:"
    yield ""
    for field, value in trial["overrides"].items():
        yield f"- `{field}`: {masked_uri(str(value))}"
    yield from (f"- {change}" for change in changes(trial))
    yield f"- task: {report['task']}, {report['prompts']:,} prompts of the {report['split']} split"
    yield f"- seeds: {', '.join(map(str, report['seeds']))}; this is the first one's teacher, and scores are means over seeds"
    yield ""


def _scores(report: Json) -> Iterator[str]:
    teacher, baselines = report["teacher"], report["baselines"]
    yield "## Scores"
    yield ""
    yield f"{scored(report).capitalize()} with 95 % intervals."
    yield ""
    yield "| | sampled | greedy |"
    yield "|---|---|---|"
    yield _row("original teacher", teacher["original"])
    yield _row("this teacher", teacher["calibrated"])
    for student in report["students"]:
        yield _row(f"{student['method']} student of the original", student["control"])
        yield _row(f"{student['method']} student of this teacher", student["calibrated"])
    for name, title in (("base", "the student before"), ("sft_gold", "student trained on gold completions")):
        if baselines[name] is not None:
            yield _row(title, baselines[name])
    yield ""
    for student in report["students"]:
        ratio = f"×{number(student['ratio'], 2)} {interval(student['ratio_ci95'])}"
        yield f"- {student['method']}: students score {ratio} of those of the original"
    yield f"- KL(teacher || original): {number(teacher['kl_per_sequence'], 2)} nats a sequence"
    yield ""


def _row(title: str, score: Json) -> str:
    cells = [f"{number(score[kind]['mean'])} {interval(score[kind]['ci95'])}" for kind in ("sampled", "greedy")]
    return f"| {title} | {' | '.join(cells)} |"


def _words(report: Json) -> Iterator[str]:
    yield "## Claims"
    yield ""
    for claim in claims_in_words(report):
        yield f"- {claim.title}: {'yes' if claim.holds else 'no'}. {claim.sentence}"
    yield ""
    yield "## Limits"
    yield ""
    for note in notes(report):
        yield f"- {note}"
