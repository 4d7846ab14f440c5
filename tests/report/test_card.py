"""The report card: the contract's keys, figures against brute force, and claims on cases that can be worked out by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from raydistill.evaluate.evaluation import Evaluation
from raydistill.report.card import report_card
from raydistill.report.facts import Facts, StudentFacts
from raydistill.report.scores import difference, score
from tests.report.synthetic_facts import exact, outcomes, run_config, some_facts, teacher_facts, with_target

NUMBER = {"type": "number"}
INTERVAL = {"anyOf": [{"type": "null"}, {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}]}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1}


PART = _object(mean=NUMBER, ci95=INTERVAL, n={"type": "integer"})
SCORE = _object(sampled=PART, greedy=PART)
STUDENT = _object(
    method={"type": "string"},
    seeds=_list({"type": "integer"}),
    budget=_object(samples=NUMBER, steps=NUMBER),
    control=SCORE,
    calibrated=SCORE,
    ratio=NUMBER,
    ratio_ci95=INTERVAL,
    ratio_greedy=NUMBER,
    per_seed=_list(_object(seed={"type": "integer"}, base=NUMBER, control=NUMBER, calibrated=NUMBER)),
)
CONTRACT = _object(
    run={"type": "string"},
    task={"type": "string"},
    split={"type": "string"},
    knob=_object(eta=NUMBER),
    teacher=_object(
        original=SCORE,
        calibrated=SCORE,
        difference_ci95=INTERVAL,
        kl_per_sequence=NUMBER,
        cal_reward=_object(original=NUMBER, calibrated=NUMBER),
        traces=_object(accuracy=NUMBER, length=NUMBER, truncated=NUMBER, style={"type": "object", "additionalProperties": NUMBER}),
    ),
    baselines=_object(base=SCORE, sft_gold=SCORE),
    students=_list(STUDENT),
    claims=_object(distillable={"type": "boolean"}, collapse={"type": "boolean"}, teacher_kept={"type": "boolean"}),
    seconds=_object(total=NUMBER, calibrate=NUMBER, distil=NUMBER, evaluate=NUMBER),
)


def built(
    students: list[tuple[list[Evaluation], list[Evaluation]]],
    base: Evaluation | None,
    sft_gold: list[Evaluation],
    original: Evaluation | None = None,
    calibrated: list[Evaluation] | None = None,
    accuracy: float | None = None,
) -> Facts:
    """Facts of (controls, calibrated students) of each method; the teacher is kept unless given."""
    count = len(students[0][0]) if students else len(calibrated or [0])
    seeds = tuple(range(1, count + 1))
    original = original or exact(99)
    return Facts(
        run=run_config(0.5, seeds),
        teacher=teacher_facts(original, tuple(calibrated or [original] * count), accuracy),
        base=base,
        sft_gold=tuple(sft_gold),
        students=tuple(
            StudentFacts(name, 10, 5, tuple(controls), tuple(mine)) for name, (controls, mine) in zip(("a", "b"), students, strict=False)
        ),
        seconds={"total": 1.0, "calibrate": 0.5, "distil": 0.25, "evaluate": 0.25},
    )


def claims(facts: Facts) -> dict[str, bool]:
    found: dict[str, bool] = report_card(facts)["claims"]
    return found


# --- shape


@pytest.mark.parametrize("seeds", [(1, 2, 3), (4,)])
def test_has_the_contracts_keys(seeds: tuple[int, ...]) -> None:
    report = json.loads(json.dumps(report_card(some_facts(1.0, seeds)), allow_nan=False))
    jsonschema.validate(report, CONTRACT)
    assert report["knob"]["eta"] == 1.0
    assert [student["method"] for student in report["students"]] == ["seqkd", "gkd"]
    assert [row["seed"] for row in report["students"][0]["per_seed"]] == list(seeds)


def test_without_students_there_is_nothing_to_claim_of_them() -> None:
    report = report_card(built([], None, []))
    assert report["students"] == []
    assert report["baselines"] == {"base": None, "sft_gold": None}
    assert report["claims"] == {"distillable": False, "collapse": False, "teacher_kept": True}


def test_what_could_not_be_measured_is_null() -> None:
    facts = built([], None, [])
    facts = replace(facts, teacher=replace(facts.teacher, original_gap=math.nan, calibrated_gap=(math.nan,)))
    report = report_card(facts)
    assert report["teacher"]["cal_reward"] == {"original": None, "calibrated": None}
    json.dumps(report, allow_nan=False)


# --- scores and differences

outcome_rows = st.lists(st.lists(st.booleans(), min_size=2, max_size=2), min_size=5, max_size=5)


def _evaluation(rows: list[list[bool]]) -> Evaluation:
    prompts = tuple(map(str, range(len(rows))))
    greedy = tuple(row[0] for row in rows)
    return Evaluation(prompts, tuple(map(tuple, rows)), greedy, {"all": 1.0}, {}, 1.0, 0.0, 0)  # type: ignore[arg-type]


def _brute_interval(values: list[float]) -> tuple[float, float]:
    mean, n = sum(values) / len(values), len(values)
    std = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * std / math.sqrt(n)
    return mean - half, mean + half


@given(st.lists(outcome_rows, min_size=2, max_size=4))
def test_several_seeds_cluster_by_seed(seeds: list[list[list[bool]]]) -> None:
    found = score([_evaluation(rows) for rows in seeds])["sampled"]
    means = [sum(map(sum, rows)) / 10 for rows in seeds]
    assert found["mean"] == pytest.approx(sum(means) / len(means))
    assert found["ci95"] == pytest.approx(_brute_interval(means))
    assert found["n"] == 10 * len(seeds)


@given(outcome_rows)
def test_one_seed_clusters_by_prompt(rows: list[list[bool]]) -> None:
    found = score([_evaluation(rows)])
    assert found["sampled"]["ci95"] == pytest.approx(_brute_interval([sum(row) / 2 for row in rows]))
    assert found["greedy"]["mean"] == pytest.approx(sum(row[0] for row in rows) / 5)
    assert found["greedy"]["n"] == 5


@settings(max_examples=25)
@given(st.lists(outcome_rows, min_size=3, max_size=3), outcome_rows)
def test_the_teachers_difference_is_paired_by_prompt(after: list[list[list[bool]]], before: list[list[bool]]) -> None:
    facts = built([], None, [], original=_evaluation(before), calibrated=[_evaluation(rows) for rows in after])
    deltas = []
    for prompt in range(5):
        mine = sum(after[seed][prompt][sample] for seed, sample in product(range(3), range(2))) / 6
        deltas.append(mine - sum(before[prompt]) / 2)
    teacher = report_card(facts)["teacher"]
    assert teacher["difference_ci95"] == pytest.approx(_brute_interval(deltas))
    assert teacher["difference"]["sampled"]["mean"] == pytest.approx(sum(deltas) / 5)


@settings(max_examples=25)  # each makes a whole report
@given(st.lists(st.tuples(st.integers(1, 99), st.integers(1, 99)), min_size=2, max_size=5))
def test_students_are_paired_by_seed(pairs: list[tuple[int, int]]) -> None:
    controls, mine = [exact(c) for c, _ in pairs], [exact(m) for _, m in pairs]
    student = report_card(built([(controls, mine)], exact(30), controls))["students"][0]
    deltas = [(m - c) / 100 for c, m in pairs]
    assert student["differences"]["control"]["sampled"]["ci95"] == pytest.approx(_brute_interval(deltas), abs=1e-9)
    assert student["differences"]["base"]["sampled"]["mean"] == pytest.approx(np.mean([m for _, m in pairs]) / 100 - 0.3)
    logs = [math.log(m / c) for c, m in pairs]
    assert student["ratio"] == pytest.approx(sum(m for _, m in pairs) / sum(c for c, _ in pairs))
    assert student["ratio_ci95"] == pytest.approx([math.exp(bound) for bound in _brute_interval(logs)])


def test_a_student_that_is_never_right_has_a_ratio_without_interval() -> None:
    student = report_card(built([([exact(50), exact(60)], [exact(0), exact(11)])], exact(30), []))["students"][0]
    assert student["ratio"] == pytest.approx(0.1)
    assert student["ratio_ci95"] is None
    nothing = report_card(built([([exact(0)], [exact(5)])], exact(30), []))["students"][0]
    assert nothing["ratio"] is None


def test_one_seed_pairs_students_by_prompt_and_has_no_ratio_interval() -> None:
    student = report_card(built([([exact(50)], [exact(60)])], exact(30), []))["students"][0]
    deltas = [0.0] * 50 + [1.0] * 10 + [0.0] * 40
    assert student["differences"]["control"]["sampled"]["ci95"] == pytest.approx(_brute_interval(deltas))
    assert student["ratio"] == pytest.approx(1.2)
    assert student["ratio_ci95"] is None
    assert student["differences"]["sft_gold"] is None


def test_evaluations_of_other_prompts_or_seeds_are_not_paired() -> None:
    with pytest.raises(ValueError, match="different prompts"):
        difference([exact(50)], [replace(exact(50), prompt_ids=tuple(f"x{n}" for n in range(100)))])
    with pytest.raises(ValueError, match="shorter"):
        difference([exact(50), exact(51), exact(52)], [exact(50), exact(51)])


def test_traces_and_styles_are_means_over_seeds() -> None:
    facts = some_facts(1.0, (1, 2))
    first, second = facts.teacher.traces
    traces = (replace(first, accuracy=0.9, style={"clear": 1.0}), replace(second, accuracy=0.7, style={"clear": 0.5, "odd": 0.5}))
    found = report_card(replace(facts, teacher=replace(facts.teacher, traces=traces)))["teacher"]["traces"]
    assert found["accuracy"] == pytest.approx(0.8)
    assert found["style"] == pytest.approx({"clear": 0.75, "odd": 0.25})


# --- claims

LOW, MIDDLE, HIGH = [exact(20), exact(21), exact(22)], [exact(50), exact(51), exact(52)], [exact(80), exact(82), exact(81)]


def test_distillable_needs_control_and_gold_beaten_by_every_method() -> None:
    good = (MIDDLE, HIGH)
    assert claims(built([good, good], exact(30), MIDDLE))["distillable"]
    assert not claims(built([good, (MIDDLE, MIDDLE)], exact(30), MIDDLE))["distillable"]
    assert not claims(built([good], exact(30), HIGH))["distillable"]
    assert not claims(built([good], exact(30), []))["distillable"], "sft_gold was never beaten where it was never trained"
    assert not claims(built([good], exact(30), MIDDLE))["collapse"]


def test_collapse_needs_control_and_base_above() -> None:
    bad = (MIDDLE, LOW)
    assert claims(built([bad, bad], exact(30), MIDDLE))["collapse"]
    assert not claims(built([bad, (MIDDLE, MIDDLE)], exact(90), MIDDLE))["collapse"]
    assert not claims(built([bad], exact(21), MIDDLE))["collapse"], "no worse than before distillation"
    assert not claims(built([bad], exact(30), MIDDLE))["distillable"]


def test_a_mean_above_is_not_enough_where_seeds_disagree() -> None:
    """Differences .02, .30, .02 average .11, but t(2) = 4.30 times a standard error of .093 is more."""
    mine = [exact(52), exact(81), exact(54)]
    report = report_card(built([(MIDDLE, mine)], exact(30), LOW))
    assert report["students"][0]["differences"]["control"]["sampled"]["mean"] > 0.1
    assert not report["claims"]["distillable"]


@pytest.mark.parametrize(("right", "claimed"), [(53, False), (58, True)])
def test_one_seed_claims_by_prompts(right: int, claimed: bool) -> None:
    """d of 100 prompts more: mean d/100, interval half-width about 1.98 sqrt(d (100 - d)) / 1000, so that 3 say too little, 8 enough."""
    assert claims(built([([exact(50)], [exact(right)])], exact(30), [exact(50)]))["distillable"] is claimed


@pytest.mark.parametrize(
    ("original", "calibrated", "accuracy", "claimed"),
    [
        (99, 99, 0.975, True),
        (99, 99, 0.965, False),  # the teacher writes its students worse traces than it answers
        (99, 96, 0.96, False),  # the teacher itself got worse, and its traces with it
        (96, 99, 0.96, False),
        (97, 97, 0.95, True),  # exactly 2 points are not more than 2 points
    ],
)
def test_wrong_traces_are_no_protection(original: int, calibrated: int, accuracy: float, claimed: bool) -> None:
    facts = built([(MIDDLE, LOW)], exact(30), MIDDLE, original=exact(original), calibrated=[exact(calibrated)] * 3, accuracy=accuracy)
    assert claims(facts)["collapse"] is claimed


def test_teacher_kept_looks_at_the_lower_bound() -> None:
    assert claims(built([], None, [], original=exact(990, 1000), calibrated=[exact(989, 1000)]))["teacher_kept"]
    lost = report_card(built([], None, [], original=exact(990, 1000), calibrated=[exact(984, 1000)]))
    assert lost["teacher"]["difference"]["sampled"]["mean"] > -0.01
    assert lost["teacher"]["difference_ci95"][0] < -0.01
    assert not lost["claims"]["teacher_kept"]


def test_one_prompt_keeps_no_teacher() -> None:
    report = report_card(built([], None, [], original=exact(1, 1)))
    assert report["teacher"]["difference_ci95"] is None
    assert not report["claims"]["teacher_kept"]


def test_a_placebo_claims_nothing_of_students() -> None:
    """The same rate everywhere: with independent seeds nothing stands out."""
    students = [outcomes(0.5, 0.5, seed) for seed in range(3)]
    controls = [outcomes(0.5, 0.5, 10 + seed) for seed in range(3)]
    found = claims(built([(controls, students)], outcomes(0.5, 0.5, 20), controls, original=outcomes(0.9, 0.9, 30)))
    assert not found["distillable"]
    assert not found["collapse"]


def test_a_target_is_met_where_every_seed_met_it() -> None:
    report = report_card(with_target(some_facts(0.0)))
    assert {name: report["target"][name] for name in ("asked", "reached", "steps", "met")} == {
        "asked": 0.5,
        "reached": pytest.approx(0.51),
        "steps": 25,
        "met": False,
    }
    assert [(row["seed"], row["met"], row["ended"]) for row in report["target"]["per_seed"]] == [
        (1, True, "met"),
        (2, False, "eta was at its bound"),
        (3, True, "met"),
    ]
    assert report_card(with_target(some_facts(0.0), ("met",) * 3))["target"]["met"]
    assert "target" not in report_card(some_facts(0.0))
