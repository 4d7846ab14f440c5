"""The page of a sweep: what to choose, how the knob orders students, both Pareto fronts, figures and notes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from raydistill.report import words
from raydistill.report.html import markup, render
from raydistill.report.knob_curve import eta_text, methods
from raydistill.report.scores import Json
from raydistill.report.sweep_analysis import (
    ENOUGH,
    Point,
    Rank,
    Step,
    curves,
    first_method,
    pareto,
    points,
    ranks,
    recommendations,
    reports,
    steps,
)
from raydistill.report.sweep_page import SWEEP
from raydistill.report.sweep_plots import curve_svgs, pareto_svg

ETAS_OF_RANK = 4
"""A rank correlation of fewer etas is near 1 or -1 by chance too often to be told."""


def sweep_html(sweep: Json, beside: Json | None = None) -> str:
    """The page of a sweep, from the content of its sweep.json; the same input gives the same bytes.

    `beside` is another sweep, such as the same with shadow students: its students' curve is drawn beside the first one's.
    """
    trials, found = sweep["trials"], reports(sweep["trials"])
    grouped = curves(trials)
    return render(
        SWEEP,
        title=f"Sweep {sweep['sweep']}",
        sweep=sweep,
        counted=_counted(trials),
        measured=_measured(found),
        recommendations=recommendations(trials),
        pictures=[markup(picture) for picture in curve_svgs(sweep, beside)],
        beside=None if beside is None else _beside(beside, first_method(trials)),
        orders=list(_orders(ranks(trials), steps(trials))),
        front=markup(pareto_svg(trials)),
        fronts=list(_fronts(trials)),
        curves=grouped,
        several=sum(bool(curve.reports) for curve in grouped) > 1,
        methods=methods(found),
        notes=list(_notes(trials)),
        details=[(trial, words.claims_in_words(trial["report"]), words.notes(trial["report"])) for trial in trials if trial["report"]],
    )


def _counted(trials: Sequence[Json]) -> str:
    """Such as `8 trials: 6 done, 1 failed, 1 stopped.`"""
    counts = Counter(trial["status"] for trial in trials)
    listed = ", ".join(f"{counts[status]} {status}" for status in ("done", "failed", "stopped") if counts[status])
    return f"{_many(len(trials), 'trial')}{': ' * bool(listed)}{listed}."


def _measured(found: Sequence[Json]) -> str:
    """What all were measured on; empty without a report."""
    if not found:
        return ""
    parts = [
        f"Task {_alike([report['task'] for report in found])}",
        f"{_alike([report['split'] for report in found])} split",
        f"{_alike([report['prompts'] for report in found])} prompts",
        f"seeds {_alike([', '.join(map(str, report['seeds'])) for report in found])}",
    ]
    return ", ".join(parts) + "."


def _alike(values: Sequence[object]) -> str:
    """Every value once, in order of first appearance."""
    return " or ".join(f"{value:,}" if isinstance(value, int) else str(value) for value in dict.fromkeys(values))


def _beside(beside: Json, method: str | None) -> str:
    if method in methods(reports(beside["trials"])):
        return f"Beside them, {method} students of sweep {beside['sweep']}."
    return f"Sweep {beside['sweep']} has no students to stand beside these."


def _orders(found: Sequence[Rank], taken: Sequence[Step]) -> Iterator[str]:
    """How well eta orders students, curve by curve, and where it does not."""
    for rank in found:
        name = ", ".join(filter(None, (rank.method, rank.curve)))
        if rank.etas < ETAS_OF_RANK:
            yield f"{name}: {_many(rank.etas, 'eta')}, too few for a rank correlation."
        else:
            yield (
                f"{name}: Spearman's rank correlation of eta with the students' mean score is {words.number(rank.sampled, 2)} sampled and "
                f"{words.number(rank.greedy, 2)} greedy, over {rank.etas} values of eta."
            )
        yield from (_reversal(name, step) for step in taken if (step.method, step.curve) == (rank.method, rank.curve) and step.falls)
    if taken and not any(step.falls for step in taken):
        yield f"No reversal: from no eta to the next ({_many(len(taken), 'pair')}) do students' sampled scores go down."
    if falling := sum(step.falls for step in taken):
        yield (
            f"Of {_many(len(taken), 'pair')} of neighbouring etas {falling} {'go' if falling > 1 else 'goes'} down, "
            f"{sum(step.beyond for step in taken)} beyond the interval; where eta did nothing, one in forty would by chance."
        )


def _reversal(name: str, step: Step) -> str:
    """Where students get worse though eta grows."""
    told = "no interval, for they share fewer than two seeds"
    if step.ci95 is not None:
        told = f"{words.interval(step.ci95, plus=True)} over seeds, {'beyond' if step.beyond else 'not beyond'} that interval"
    return (
        f"{name}: a reversal from eta {eta_text(step.below['eta'])} to {eta_text(step.above['eta'])}, where the sampled score changes "
        f"by {words.signed(step.difference)} ({told})."
    )


def _fronts(trials: Sequence[Json]) -> Iterator[str]:
    if not points(trials):
        return
    fronts = pareto(trials)
    yield f"For makers of open models, where teacher and students score high: {_listed(fronts.open)}."
    yield f"For protection, where the teacher scores high and students low: {_listed(fronts.protected)}."


def _listed(front: Sequence[Point]) -> str:
    return "; ".join(
        f"{point.trial['id']} (teacher {words.number(point.utility)}, students {words.number(point.distillability)})" for point in front
    )


def _notes(trials: Sequence[Json]) -> Iterator[str]:
    """What limits a choice from the sweep as a whole."""
    found = reports(trials)
    yield from _about_choosing(found)
    yield from _about_seeds(found)
    yield from _about_differences(trials)


def _about_choosing(found: Sequence[Json]) -> Iterator[str]:
    if any(report["split"] == "report" for report in found):
        yield (
            "The trials were measured on the report split, and choosing among them by it makes the chosen one look better than it is: "
            "choose on the tune split (evaluation.split=tune), then quote the chosen one's figures from the report split."
        )
    if any(report["split"] == "tune" for report in found):
        yield "Figures of the tune split are for choosing; quote the chosen trial's figures from a run on the report split."
    if len(found) > 1:
        yield f"The best of {len(found)} is partly the luckiest: the more trials, the more of its lead is chance. Intervals ignore that."
    yield (
        f"Balance asks for {ENOUGH:.0%} of the best student's gain over its control, by students that beat their control, at the least KL. "
        "All three choices go by sampled scores of the first method's students, among trials that kept their teacher."
    )


def _about_seeds(found: Sequence[Json]) -> Iterator[str]:
    fewest = min((len(report["seeds"]) for report in found), default=words.SEEDS_OF_DOCS)
    if fewest < words.SEEDS_OF_DOCS:
        yield f"Fewer than {words.SEEDS_OF_DOCS} seeds in a trial: enough to see an effect, too few to quote its size."
    if fewest == 1:
        yield words.clustering(1)


def _about_differences(trials: Sequence[Json]) -> Iterator[str]:
    found, method = reports(trials), first_method(trials)
    if len({(report["task"], report["split"], report["prompts"]) for report in found}) > 1:
        yield "Trials differ in task, split or number of prompts: their scores are not of the same prompts."
    without = [trial["id"] for trial in trials if trial["report"] and method not in methods([trial["report"]])]
    if without:
        yield f"Without students of {method or 'any method'}, and so not chosen from: {', '.join(without)}."
    if any(trial["status"] == "stopped" for trial in trials):
        yield "A trial that was stopped early was not measured: order and fronts are of those that went on, not picked by chance."


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
