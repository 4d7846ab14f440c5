"""From what was measured to the parts of diagnosis.json. Every figure has its unit, 95 % interval, n (prompts) and reference value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raydistill.diagnose.calibration_error import (
    Answer,
    calibrated_when_wrong,
    calibration_error,
    confidence_when_wrong,
    noise_floor,
    overconfidence,
    reliability,
)
from raydistill.diagnose.comparer import BINS, TraceDivergence
from raydistill.diagnose.degradation import compression_ratio, distinct_share, is_invalid_utf8, repeated_share
from raydistill.diagnose.gradient_noise import spread, variance_ratio
from raydistill.diagnose.preference import Rivals, auc, paired_rate
from raydistill.diagnose.references import against
from raydistill.diagnose.sampled import Sampled
from raydistill.diagnose.self_consistency import votes
from raydistill.diagnose.tail_noise import NO_KL, SHARES
from raydistill.evaluate.intervals import Estimate, mean_estimate, paired_difference
from raydistill.evaluate.ratios import ratio_estimate, ratio_of_ratios

Json = dict[str, Any]
Rows = Sequence[Sequence[TraceDivergence]]
"""By prompt."""


NOT_RIGHT_OR_WRONG = "completions of this task are better or worse, not right or wrong"


def not_measured(why: str) -> Json:
    return {"not measured": why}


def figure(estimate: Estimate, unit: str, reference: float | None = None, within: tuple[float, float] | None = None) -> Json:
    """`within` are bounds that the quantity has by definition, and its interval is cut to."""
    low, high = within or (float("-inf"), float("inf"))
    bounds = None if estimate.ci95 is None else [min(high, max(low, bound)) for bound in estimate.ci95]
    return {"value": estimate.mean, "unit": unit, "ci95": bounds, "n": estimate.n, "reference": reference}


def without_interval(value: float | None, unit: str, n: int, why: str, reference: float | None = None) -> Json:
    """`why` says why it has no value, where it has none."""
    found = {"value": value, "unit": unit, "ci95": None, "n": n, "reference": reference}
    return found | {"undefined": why} if value is None else found


def score(sampled: Sampled, unit: str = "share right") -> Json:
    """Share of right completions; their mean reward where the task is graded, as `unit` says."""
    return figure(mean_estimate([sum(row) / len(row) for row in sampled.right_BG]), unit, None, (0, 1))


# --- traps

KL_BOUNDS = (0.0, float("inf"))


def tail_noise(rows: Rows, ks: Sequence[int]) -> Json:
    """From the teacher's traces. Its value is the share of KL(teacher || student) beyond k = 50, or 10 in a small vocabulary."""
    told = SHARES[1] if ks[-1] > SHARES[1] else SHARES[0]
    shares = {str(k): _share(rows, ks, k, "forward") for k in SHARES}
    return shares[str(told)] | {
        "k": told,
        "vocabulary": ks[-1],
        "share_beyond": {"forward": shares, "reverse": {str(k): _share(rows, ks, k, "reverse") for k in SHARES}},
        "curve": {
            direction: [{"k": k} | figure(_per_token(rows, direction, place), "nats a token", 0.0, KL_BOUNDS) for place, k in enumerate(ks)]
            for direction in ("forward", "reverse")
        },
    }


def _share(rows: Rows, ks: Sequence[int], k: int, direction: str) -> Json:
    """Share of the KL beyond k, 1 - KL@k / KL, from 0 (the top k tell all) to 1; null where the KL is below NO_KL a token."""
    place = ks.index(k) if k in ks else len(ks) - 1
    kept, whole = [[_sums(row, direction, at) for row in rows] for at in (place, len(ks) - 1)]
    if sum(whole) < NO_KL * max(1, sum(map(_tokens, rows))):
        return without_interval(None, "share of the KL", len(rows), "the KL is about 0", 0.0)
    beyond = [b - a for a, b in zip(kept, whole, strict=True)]
    found = figure(ratio_estimate(beyond, whole), "share of the KL", 0.0, (0, 1))
    return found | {"value": min(1.0, max(0.0, found["value"]))}


def off_policy_instability(on_teacher: Rows, on_student: Rows, bin_width: int) -> Json:
    """KL(teacher || student) a token on the student's own prefixes over that on the teacher's; 1 where they do not differ."""
    places = len(on_teacher[0][0].forward) - 1
    pairs = [(a, b) for a, b in zip(on_teacher, on_student, strict=True) if _tokens(a) and _tokens(b)]
    teachers, students = [a for a, _ in pairs], [b for _, b in pairs]
    parts = {"teacher_prefixes": _per_token(teachers, "forward", places), "student_prefixes": _per_token(students, "forward", places)}
    found = {name: figure(estimate, "nats a token", 0.0, KL_BOUNDS) for name, estimate in parts.items()}
    if min(estimate.mean for estimate in parts.values()) < NO_KL:
        return not_measured("KL(teacher || student) is about 0: the models agree") | found
    ratio = ratio_of_ratios(_ratio_of(students, places), _ratio_of(teachers, places))
    by_place = {"teacher_prefixes": _by_place(teachers, bin_width), "student_prefixes": _by_place(students, bin_width)}
    return figure(ratio, "ratio", 1.0) | found | {"by_position": by_place}


def gradient_noise(on_teacher: Sequence[float], on_student: Sequence[float]) -> Json:
    """Variance of the gradient norm on the student's own prefixes over that on the teacher's. n counts micro-batches."""
    if not all(map(math.isfinite, (*on_teacher, *on_student))):
        return not_measured("a gradient is not finite")
    ratio = variance_ratio(on_student, on_teacher)
    value = figure(ratio, "ratio of variances", 1.0) if ratio else not_measured("the gradient's length does not vary")
    teachers, students = _spread(on_teacher), _spread(on_student)
    return value | {"teacher_prefixes": teachers, "student_prefixes": against(students, teachers)}


def _spread(norms: Sequence[float]) -> Json:
    found, n = spread(norms), len(norms)
    return {
        "mean": figure(found.mean, "length of the gradient", 0.0, KL_BOUNDS),
        "variance": {"value": found.variance, "unit": "squared length", "ci95": None, "n": n, "reference": None},
        "variation": without_interval(found.variation, "deviation / mean", n, "all gradients are 0"),
        "norms": list(norms),
    }


def gap(teacher: Json, student: Json, preference: Json) -> Json:
    """`teacher` and `student` are score gaps on either's completions; the first is the value of the trap."""
    return teacher | {"on_teacher": teacher, "on_student": student, "wrong_trace_preference": preference}


def score_gap(own_BG: Sequence[Sequence[float]], other_BG: Sequence[Sequence[float]]) -> Json:
    """Mean of (own score - the other model's), in nats a byte, over prompts; the author's own text costs the other so much more."""
    gaps = [sum(o) / len(o) - sum(x) / len(x) for o, x in zip(own_BG, other_BG, strict=True) if o]
    if not gaps:
        return not_measured("no completion without a special token inside that fits both contexts")
    if not all(map(math.isfinite, gaps)):
        return not_measured("a model gives the probability 0 to a completion")
    return figure(mean_estimate(gaps), "nats a byte", 0.0)


def preference(student: Sequence[Rivals], teacher: Sequence[Rivals], source: str, pairs: int) -> Json:
    """Wrong-trace preference of the student, with the teacher's beside it; `source` says where the wrong traces are from."""
    both = {"student": student, "teacher": teacher}
    measured = {name: {"auc": figure(auc(r), "AUC", 0.5, (0, 1)), "paired_rate": _rate(r)} for name, r in both.items()}
    return measured["student"]["paired_rate"] | {"wrong_traces": source, "pairs": pairs} | measured


def _rate(rivals: Sequence[Rivals]) -> Json:
    return figure(paired_rate(rivals), "probability", 0.5, (0, 1))


# --- symptoms


def overconfident_hallucination(student_BG: Sequence[Sequence[Answer]], teacher_BG: Sequence[Sequence[Answer]]) -> Json:
    """Calibration error of the student's answers, with the teacher's beside it; references are what a calibrated model would come to."""
    student, teacher = _calibration(student_BG), _calibration(teacher_BG)
    return student.get("calibration_error", student) | {"student": student, "teacher": teacher}


def _calibration(answers_BG: Sequence[Sequence[Answer]]) -> Json:
    flat = [answer for row in answers_BG for answer in row]
    if not flat:
        return not_measured("no completion has an answer")
    wrong, reference = confidence_when_wrong(answers_BG), calibrated_when_wrong(answers_BG)
    return {
        "calibration_error": figure(calibration_error(answers_BG), "probability", noise_floor(answers_BG), (0, 1)),
        "overconfidence": figure(overconfidence(answers_BG), "confidence - share right", 0.0, (-1, 1)),
        "confidence_when_wrong": figure(wrong, "probability", reference, (0, 1)) if wrong else not_measured("no answer is wrong"),
        "answers": len(flat),
        "bins": [asdict(one) for one in reliability(flat)],
    }


def self_consistency(student: Sampled, teacher: Sampled, task: str) -> Json:
    """Of both, over as many completions of each prompt: the majority's share as a confidence, beside that by token probabilities."""
    samples = min(len(row) for sampled in (student, teacher) for row in sampled.completions_BG)
    own, other = (_consistency(one, task, samples) for one in (student, teacher))
    return {"samples": samples, "student": against(own, other), "teacher": other}


def _consistency(sampled: Sampled, task: str, samples: int) -> Json:
    found = [one for one in votes(sampled, task, samples) if one is not None]
    if not found:
        return not_measured(f"no prompt has two answers among {samples} completions")
    answers = [one.as_answer for one in found]
    by_prompt = [[one] for one in answers]
    return {
        "calibration_error": figure(calibration_error(by_prompt), "probability", noise_floor(by_prompt), (0, 1)),
        "majority_share": figure(mean_estimate([one.confidence for one in answers]), "probability", None, (0, 1)),
        "majority_right": figure(mean_estimate([float(one.right) for one in answers]), "share right", None, (0, 1)),
        "entropy": figure(mean_estimate([one.entropy for one in found]), "nats a prompt", 0.0, KL_BOUNDS),
        "bins": [asdict(one) for one in reliability(answers)],
    }


def local_decoding_degradation(student: Sampled, teacher: Sampled) -> Json:
    """Student minus teacher of the share of repeated n-grams, paired by prompt; and the rest for both.

    Shares of completions are over all; what depends on how many there are, over as many completions of each model.
    """
    samples = min(len(row) for sampled in (student, teacher) for row in sampled.completions_BG)
    own, other = (
        [sum(repeated_share(one.text) for one in row) / len(row) for row in sampled.completions_BG] for sampled in (student, teacher)
    )
    value = figure(paired_difference(own, other), "share of 4-grams, student - teacher", 0.0, (-1, 1))
    found, teachers = (_degradation(sampled, samples) for sampled in (student, teacher))
    return value | {"student": against(found, teachers), "teacher": teachers}


def _degradation(sampled: Sampled, samples: int) -> Json:
    """`samples` of each prompt for the figures of the whole set."""
    rows = sampled.completions_BG
    texts = [one.text for row in rows for one in row[:samples]]
    by_completion = {
        "repeated": [[repeated_share(one.text) for one in row] for row in rows],
        "truncated": [[float(one.truncated) for one in row] for row in rows],
        "invalid_utf8": [[float(is_invalid_utf8(one.text, one.truncated)) for one in row] for row in rows],
    }
    shares = {
        name: figure(mean_estimate([sum(v) / len(v) for v in values]), "share", 0.0, (0, 1)) for name, values in by_completion.items()
    }
    return shares | {
        "distinct": without_interval(distinct_share(texts), "share", len(texts), "no completion has two words"),
        "compression_ratio": without_interval(compression_ratio(texts), "ratio", len(texts), "there is no text"),
    }


# --- sums over traces


def _tokens(row: Sequence[TraceDivergence]) -> int:
    return sum(one.tokens for one in row)


def _sums(row: Sequence[TraceDivergence], direction: str, place: int) -> float:
    return sum(getattr(one, direction)[place] for one in row)


def _ratio_of(rows: Rows, place: int) -> tuple[list[float], list[float]]:
    return [_sums(row, "forward", place) for row in rows], [_tokens(row) for row in rows]


def _per_token(rows: Rows, direction: str, place: int) -> Estimate:
    return ratio_estimate([_sums(row, direction, place) for row in rows], [_tokens(row) for row in rows])


def _by_place(rows: Rows, bin_width: int) -> list[Json]:
    """KL a token by place in the completion; bins without a token are left out."""
    found = []
    for place in range(BINS):
        sums = [sum(one.forward_by_bin[place] for one in row) for row in rows]
        tokens = [sum(one.tokens_by_bin[place] for one in row) for row in rows]
        if any(tokens):
            found.append(
                {"position": place * bin_width}
                | figure(ratio_estimate(sums, tokens), "nats a token", 0.0, KL_BOUNDS)
                | {"tokens": sum(tokens)}
            )
    return found
