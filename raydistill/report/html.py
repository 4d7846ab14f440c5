"""Self-contained HTML: the report of one run, and the knob curve of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from raydistill.evaluate.intervals import spearman
from raydistill.report import diagnoses_page, page, words
from raydistill.report.facts import Facts
from raydistill.report.knob_curve import by_eta, eta_text, knob_curve_svg, methods, student_points
from raydistill.report.plots import scores_svg, shadows_svg, styles_svg, target_svg, training_svg
from raydistill.report.scores import Json, scored
from raydistill.track.secrets import public_yaml


def run_html(report: Json, facts: Facts, rows: Mapping[int, Sequence[Json]]) -> str:
    """The page of one run; `report` is the card of `facts`, `rows` are each seed's lines of metrics.jsonl.

    The same input gives the same bytes.
    """
    knob = facts.run.knob
    return render(
        page.RUN,
        title=f"{report['run']}: {words.setting(report)}",
        setting=words.setting(report),
        scored=scored(report),
        report=report,
        claims=words.claims_in_words(report),
        clustering=words.clustering(len(report["seeds"])),
        scores=markup(scores_svg(report)),
        styles=markup(styles_svg(report)),
        training=markup(training_svg(rows, kl_budget=knob.kl_limit)) if any(rows.values()) else None,
        shadows=markup(shadows_svg(rows, [model.model for model in facts.run.shadows.models])) if facts.run.shadows else None,
        target=markup(target_svg(rows, knob.target.student_ratio)) if knob.target else None,
        diagnosed=list(diagnoses_page.rows(report)) if "diagnosis" in report else None,
        left_out=diagnoses_page.left_out(report) if "diagnosis" in report else "",
        examples=facts.teacher.examples,
        notes=words.notes(report),
        config=public_yaml(facts.run),
    )


def knob_curve_html(reports: Sequence[Json]) -> str:
    """The page of several runs, in order of eta. Raises ValueError without a report."""
    ordered = by_eta(reports)
    diagnosed = [report for report in ordered if "diagnosis" in report]
    return render(
        page.KNOB,
        title="The knob curve",
        reports=ordered,
        methods=methods(ordered),
        curve=markup(knob_curve_svg(ordered)),
        diagnosed=markup(diagnoses_page.against_eta_svg(diagnosed)) if diagnosed else None,
        about_the_gap=diagnoses_page.about_the_gap(diagnosed) if len(diagnosed) > 1 else "",
        ranks=[(method, *_ranks(ordered, method)) for method in methods(ordered)] if len(ordered) > 3 else [],
        claims=[words.claims_in_words(report) for report in ordered],
        notes=[words.notes(report) for report in ordered],
    )


def _ranks(reports: Sequence[Json], method: str) -> list[float | None]:
    points = list(student_points(reports, method))
    etas = [eta for eta, _ in points]
    return [spearman(etas, [student["calibrated"][kind]["mean"] for _, student in points]) for kind in ("sampled", "greedy")]


def render(template: str, **values: Any) -> str:
    """All that is put in is escaped, unless it is markup of our own."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, keep_trailing_newline=True)
    environment.filters |= {"number": words.number, "signed": words.signed, "interval": words.interval, "eta": eta_text}
    return environment.from_string(template).render(values)


def markup(svg: str | None) -> Any:
    """A picture, to be put into a page as it is; None stays None."""
    from markupsafe import Markup

    return None if svg is None else Markup(svg)  # noqa: S704 - drawn by matplotlib, which escapes texts
