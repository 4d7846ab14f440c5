"""A report in words: what each claim rests on, and what to keep in mind while reading the figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raydistill.report.card import KEPT_MARGIN, TRACE_MARGIN, beyond, traces_hold
from raydistill.report.knob_curve import eta_text
from raydistill.report.scores import Json

SEEDS_OF_DOCS = 8
"""Figures in the docs rest on so many seeds or more."""
PROMPTS_OF_KEPT, SAMPLES_OF_KEPT = 1000, 4
"""What "teacher kept" is meant to be measured on."""
NAMES = {"control": "the control", "base": "the base student", "sft_gold": "sft_gold"}


@dataclass(frozen=True)
class Claim:
    """One of the three claims of a report."""

    title: str
    holds: bool
    sentence: str


def number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def interval(bounds: Sequence[float] | None, plus: bool = False) -> str:
    """`[0.100, 0.200]`, with signs if `plus`."""
    if bounds is None:
        return "[no interval]"
    return "[{}, {}]".format(*(signed(bound) if plus else number(bound) for bound in bounds))


def setting(report: Json) -> str:
    """What a run asked for: an eta, or an outcome."""
    if target := report.get("target"):
        return f"students at {target['asked']:g} of the control"
    return f"eta {eta_text(report['knob']['eta'])}"


def claims_in_words(report: Json) -> list[Claim]:
    held = report["claims"]
    return [
        Claim("Distillable", held["distillable"], _against(report, ("control", "sft_gold"), 1, "beat")),
        Claim("Collapse", held["collapse"], _collapse(report)),
        Claim("Teacher kept", held["teacher_kept"], _kept(report)),
    ]


def notes(report: Json) -> list[str]:
    """Everything that limits what the figures say."""
    return [*_about_the_target(report), *_measured_on(report), *_about_students(report), *_about_the_teacher(report)]


def _about_the_target(report: Json) -> Iterator[str]:
    target = report.get("target", {"per_seed": []})
    for row in target["per_seed"]:
        told = f"{number(row['reached'])} after {row['steps']} steps, measured on the tune split while the teacher was calibrated"
        if row["met"]:
            yield f"Target, seed {row['seed']}: {target['asked']:g} was asked for; {told}."
        else:
            yield f"Target, seed {row['seed']}: {target['asked']:g} was not reached; nearest was {told}; {row['ended']}."


def _against(report: Json, opponents: tuple[str, str], sign: int, verb: str) -> str:
    if not report["students"]:
        return "No students were distilled in this run."
    missing = [NAMES[name] for name in opponents if report["students"][0]["differences"][name] is None]
    if missing:
        return f"Nothing can be claimed: {' and '.join(missing)} was not measured."
    pairs = [(student, name) for student in report["students"] for name in opponents]
    failing = [(student, name) for student, name in pairs if not beyond(student["differences"][name], sign)]
    listed = "; ".join(_comparison(student, name) for student, name in failing or pairs)
    if failing:
        return f"Not every method's students {verb} {NAMES[opponents[0]]} and {NAMES[opponents[1]]}: {listed}."
    return f"Students of every method {verb} {NAMES[opponents[0]]} and {NAMES[opponents[1]]}: {listed}."


def _comparison(student: Json, name: str) -> str:
    difference = student["differences"][name]["sampled"]
    return f"{student['method']} against {NAMES[name]} {signed(difference['mean'])} {interval(difference['ci95'], plus=True)}"


def _collapse(report: Json) -> str:
    sentence = _against(report, ("control", "base"), -1, "fall below")
    if not report["students"] or traces_hold(report["teacher"]):
        return sentence
    teacher = report["teacher"]
    traces, before, after = (teacher["traces"]["accuracy"], *(teacher[one]["sampled"]["mean"] for one in ("original", "calibrated")))
    if report.get("graded"):
        return (
            f"The traces that students were fed have a mean reward of {number(traces)}, more than {TRACE_MARGIN:g} below the teacher's "
            f"{number(before)} before and {number(after)} after: bad traces spoil any student, so no protection is claimed. {sentence}"
        )
    return (
        f"The traces that students were fed are right in {traces:.1%} of cases, more than "
        f"{TRACE_MARGIN * 100:.0f} points below the teacher's {before:.1%} before and "
        f"{after:.1%} after: wrong traces spoil any student, so no protection is claimed. {sentence}"
    )


def _kept(report: Json) -> str:
    difference = report["teacher"]["difference"]["sampled"]
    return (
        f"Its score moved by {signed(difference['mean'])} {interval(difference['ci95'], plus=True)}; "
        f"kept means that the lower bound is above {signed(-KEPT_MARGIN)}."
    )


def _measured_on(report: Json) -> Iterator[str]:
    seeds = len(report["seeds"])
    yield f"{seeds} seed{'s' * (seeds > 1)}: seed k calibrates a teacher and distils its students. {clustering(seeds)}"
    if seeds < SEEDS_OF_DOCS:
        yield f"Fewer than {SEEDS_OF_DOCS} seeds: enough to see an effect, too few to quote its size."
    if report["split"] == "tune":
        yield "Measured on the tune split, on which choices may have been made; figures to quote come from the report split."
    yield "“Sampled” means at temperature 1. An interval covers the sampling of seeds or prompts, not other tasks, budgets or models."


def clustering(seeds: int) -> str:
    if seeds > 1:
        return "Intervals are 95 % t intervals over the seeds' means; the teacher's difference is paired by prompt."
    return "Intervals are 95 % t intervals over prompts and say nothing about another seed; a ratio has none."


def _about_students(report: Json) -> Iterator[str]:
    for student in report["students"]:
        budget, method = student["budget"], student["method"]
        yield f"{method}: the ratio holds for {budget['samples']:,} samples and {budget['steps']:,} steps; a larger budget may undo it."
        if len(report["seeds"]) > 1 and student["ratio_ci95"] is None:
            yield f"{method}: no interval of the ratio, for a student or a control scored 0."
        if beyond(student["differences"]["control"], 1) and not beyond(student["differences"]["control"], 1, "greedy"):
            yield f"{method}: better than the control when sampled but not when greedy: a gain in style share, not in ability."
    if report["students"] and (dropped := report["teacher"]["traces"]["dropped"]):
        yield f"{dropped:.1%} of the teacher's traces were not fed to students: they have a special token inside."
    if report["students"] and report["knob"]["eta"] == 0 and "target" not in report:
        yield "eta = 0 is the placebo: its ratio's interval should contain 1."
    if report["students"] and report["baselines"]["sft_gold"] is None:
        yield "The task has no gold completions, so there is no sft_gold student to beat."


def _about_the_teacher(report: Json) -> Iterator[str]:
    teacher = report["teacher"]
    completions = teacher["original"]["sampled"]["n"]
    if completions < PROMPTS_OF_KEPT * SAMPLES_OF_KEPT:
        yield (
            f"The teacher was measured on {completions:,} completions of {report['prompts']:,} prompts; "
            f"“kept” is meant for {PROMPTS_OF_KEPT:,} prompts with {SAMPLES_OF_KEPT} samples each."
        )
    failures = sum(teacher["verifier_failures"].values())
    if failures:
        yield f"{failures:,} checks of the teacher's answers timed out or crashed and count as wrong."
