"""Traps and symptoms of several seeds and etas, compared."""

from __future__ import annotations

import json
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raydistill.report.diagnoses import SYMPTOMS, TRAPS, diagnosis, gap_reversals, headlines, moved, over_seeds, verdicts
from raydistill.report.diagnoses_page import _lines, about_the_gap, against_eta_svg, rows
from raydistill.report.facts import PairFacts
from raydistill.report.html import knob_curve_html, run_html
from raydistill.report.knob_curve import by_eta, mark
from raydistill.report.write import report_card
from tests.report.synthetic_facts import some_facts


def figure(value: float | None, half: float = 0.01, unit: str = "nats a byte") -> dict:
    bounds = None if value is None else [value - half, value + half]
    return {"value": value, "unit": unit, "ci95": bounds, "n": 200, "reference": 0.0}


def diagnosed(level: float) -> dict:
    """A diagnosis.json whose figures all lie at about `level`; the numbers mean nothing."""
    rng = random.Random(level)
    f = lambda unit="probability": figure(level + 0.001 * rng.random(), unit=unit)  # noqa: E731
    gap = f("nats a byte")
    return {
        "prompts": 200,
        "verifier_failures": {"teacher": {"completions": 7, "continuations": 0}, "student": {"completions": 1, "continuations": 2}},
        "traps": {
            "tail_noise": f("share of the KL") | {"k": 10},
            "off_policy_instability": f("ratio") | {"by_position": {}},
            "gap": gap
            | {
                "too_long": {"teacher": 3, "student": 1},
                "on_teacher": gap,
                "wrong_trace_preference": f() | {"wrong_traces": "own", "pairs": 200},
            },
        },
        "symptoms": {
            "overconfident_hallucination": f() | {"student": {"confidence_when_wrong": f()}},
            "self_correction_collapse": {"not measured": "the task's traces contain no corrections"},
            "local_decoding_degradation": figure(0.0, unit="share of 4-grams, student - teacher")
            | {"student": {"repeated": f("share"), "truncated": f("share")}},
        },
    }


def pairs(original: float, calibrated: float, seeds: int = 3) -> tuple[PairFacts, ...]:
    after = tuple(diagnosed(calibrated + 0.002 * seed) for seed in range(seeds))
    control = tuple(diagnosed(original + 0.002 * seed) for seed in range(seeds))
    return PairFacts("base", (diagnosed(original),), after), PairFacts("seqkd", control, after)


def test_the_interval_over_seeds_is_students_t() -> None:
    values = [0.3, 0.36, 0.33, 0.4]
    found = over_seeds([figure(value) for value in values])
    low, high = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert found["value"] == pytest.approx(sum(values) / 4)
    assert found["ci95"] == pytest.approx([low, high])
    assert (found["n"], found["unit"], found["reference"]) == (4, "nats a byte", 0.0)


def test_a_single_seed_keeps_its_interval_over_prompts() -> None:
    assert over_seeds([figure(0.3)]) == figure(0.3)


def test_a_share_stays_between_0_and_1() -> None:
    assert over_seeds([figure(0.9, unit="probability"), figure(1.0, unit="probability")])["ci95"][1] == 1.0


def test_the_mean_of_ratios_is_that_of_their_logarithms() -> None:
    values = [1.2, 5.0, 0.4]
    found = over_seeds([figure(value, unit="ratio") | {"reference": 1.0} for value in values])
    logs = [math.log(value) for value in values]
    low, high = stats.t.interval(0.95, 2, loc=sum(logs) / 3, scale=stats.sem(logs))
    assert found["value"] == pytest.approx(stats.gmean(values))
    assert found["ci95"] == pytest.approx([math.exp(low), math.exp(high)])
    assert (found["n"], found["reference"]) == (3, 1.0)


@pytest.mark.parametrize(("unit", "low", "high"), [("share", 0.0, 1.0), ("nats a token", 0.0, None), ("nats a byte", None, None)])
def test_intervals_end_where_their_unit_does(unit: str, low: float | None, high: float | None) -> None:
    found = over_seeds([figure(0.01, unit=unit), figure(0.9, unit=unit)])["ci95"]
    assert found[0] == 0.0 if low == 0.0 else found[0] < 0
    assert found[1] == 1.0 if high == 1.0 else found[1] > 1


def test_wrong_traces_of_one_kind_alone_are_averaged() -> None:
    own, corrupted = (figure(0.3) | {"wrong_traces": source} for source in ("own", "corrupted"))
    assert over_seeds([own, own])["wrong_traces"] == "own"
    assert "with some seeds" in over_seeds([own, corrupted])["not measured"]
    assert moved(own, corrupted | {"value": 0.9, "ci95": [0.8, 0.95]}) is None
    assert moved(own, own | {"value": 0.9, "ci95": [0.8, 0.95]}) == 1


def test_what_one_seed_could_not_measure_is_not_measured() -> None:
    missing = {"not measured": "too few"}
    assert over_seeds([figure(0.3), missing]) == missing
    assert over_seeds([figure(0.3), figure(None)])["value"] is None


@given(st.floats(-1, 1), st.floats(0, 0.5), st.floats(-1, 1), st.floats(0, 0.5))
def test_moved_is_antisymmetric_and_needs_intervals_apart(a: float, wide: float, b: float, other: float) -> None:
    before, after = figure(a, wide), figure(b, other)
    assert moved(before, after) == -moved(after, before)
    apart = before["ci95"][1] < after["ci95"][0] or after["ci95"][1] < before["ci95"][0]
    assert moved(before, after) == (int(math.copysign(1, b - a)) if apart else 0)


def test_nothing_moved_without_an_interval() -> None:
    assert moved(figure(0.1), figure(None)) is None
    assert moved({"not measured": "why"}, figure(0.1)) is None
    assert moved(figure(0.1) | {"ci95": None}, figure(0.9)) is None


def test_less_recovery_is_worse_and_more_of_everything_else_is() -> None:
    before, after = (dict.fromkeys(SYMPTOMS, figure(value)) for value in (0.2, 0.6))
    told = verdicts({"original": before, "calibrated": after})
    assert told.pop("self_correction_collapse") == "better"
    assert set(told.values()) == {"worse"}


def test_every_headline_is_there_in_its_bare_form() -> None:
    found = headlines(diagnosed(0.3))
    assert list(found) == [*TRAPS, *SYMPTOMS]
    assert set(found["gap"]) == {"value", "unit", "ci95", "n", "reference"}
    assert found["wrong_trace_preference"]["wrong_traces"] == "own"
    assert set(found["self_correction_collapse"]) == {"not measured"}


def test_recovery_is_that_from_gold_completions_where_there_are_any() -> None:
    found = diagnosed(0.3)
    recovery = figure(0.5, unit="probability")
    gold = recovery | {"value": 0.2, "reference": 0.8}
    found["symptoms"]["self_correction_collapse"] = recovery | {"student": {"by_source": {"own": recovery, "gold": gold}}}
    assert headlines(found)["self_correction_collapse"] == gold
    found["symptoms"]["self_correction_collapse"]["student"]["by_source"].pop("gold")
    assert headlines(found)["self_correction_collapse"] == recovery


def test_degradation_is_the_student_s_own_whatever_its_teacher_does() -> None:
    clean, copied = diagnosed(0.3), diagnosed(0.3)
    parts = {"repeated": figure(0.7, unit="share"), "truncated": figure(0.6, unit="share")}
    copied["symptoms"]["local_decoding_degradation"] |= {"student": parts, "teacher": parts}  # the difference stays 0
    before, after = headlines(clean), headlines(copied)
    told = verdicts({"original": before, "calibrated": after})
    assert (told["local_decoding_degradation"], told["truncated"]) == ("worse", "worse")
    assert after["local_decoding_degradation"]["value"] == 0.7


def test_a_headline_without_a_value_keeps_its_reason() -> None:
    from dataclasses import replace

    found = diagnosed(0.3)
    found["traps"]["tail_noise"] |= {"value": None, "ci95": None, "undefined": "the KL is about 0"}
    assert headlines(found)["tail_noise"]["undefined"] == "the KL is about 0"
    facts = replace(some_facts(-1.0), diagnoses=(PairFacts("base", (found,), (found,)), *pairs(0.3, 0.6)[1:]))
    assert "undefined<small>the KL is about 0</small>" in run_html(report_card(facts), facts, {seed: [] for seed in facts.run.seeds})


def test_overconfidence_that_was_not_measured_has_no_confidence_either() -> None:
    found = diagnosed(0.3)
    found["symptoms"]["overconfident_hallucination"] = {"not measured": "no answers"}
    assert headlines(found)["confidence_when_wrong"] == {"not measured": "no answers"}


def report(eta: float, calibrated: float) -> dict:
    from dataclasses import replace

    return report_card(replace(some_facts(eta), diagnoses=pairs(0.3, calibrated)))


def test_a_run_without_one_has_no_diagnosis() -> None:
    assert "diagnosis" not in report_card(some_facts(1.0))


def test_the_gap_s_reversals_are_those_whose_intervals_are_apart() -> None:
    falling = [report(eta, level) for eta, level in ((-1.0, 0.6), (0.0, 0.3), (1.0, 0.1))]
    assert gap_reversals(falling) == []
    assert "nowhere" in about_the_gap(falling)
    rising = [report(eta, level) for eta, level in ((1.0, 0.5), (-1.0, 0.6), (0.0, 0.3))]
    assert gap_reversals(rising) == [(0.0, 1.0)]
    assert "from 0 to +1" in about_the_gap(rising)
    assert gap_reversals([report(0.0, 0.3), report(1.0, 0.3001)]) == []


def test_a_rise_in_many_small_steps_is_one() -> None:
    """Neighbours' intervals overlap, the ends' do not; of what holds another rise the other is named."""
    slow = [report(float(eta), 0.3 + 0.008 * eta) for eta in range(5)]
    found = gap_reversals(slow)
    assert found
    assert all(high - low == found[0][1] - found[0][0] > 1 for low, high in found)
    assert "rises beyond the intervals" in about_the_gap(slow)


def test_without_two_gaps_nothing_is_said_of_their_order() -> None:
    untold = [report(eta, 0.3) for eta in (-1.0, 0.0, 1.0)]
    for one in untold[1:]:
        one["diagnosis"]["pairs"][0]["calibrated"]["gap"] = {"not measured": "x"}
    assert gap_reversals(untold) is None
    assert "cannot be told" in about_the_gap(untold)
    between = [report(-1.0, 0.1), untold[1], report(1.0, 0.9)]
    assert gap_reversals(between) == [(-1.0, 1.0)]


def test_the_report_s_part_says_whose_figures_they_are() -> None:
    found = diagnosis(pairs(0.3, 0.6))
    assert [pair["student"] for pair in found["pairs"]] == ["base", "seqkd"]
    base, seqkd = found["pairs"]
    assert (base["original"]["gap"]["n"], base["calibrated"]["gap"]["n"], seqkd["original"]["gap"]["n"]) == (200, 3, 3)
    assert found["prompts"] == 200
    json.dumps(found, allow_nan=False)


def test_the_run_s_page_tells_what_moved() -> None:
    from dataclasses import replace

    facts = replace(some_facts(-1.0), diagnoses=pairs(0.3, 0.6))
    card = report_card(facts)
    told = {(student, name): word for student, name, _, _, word in rows(card)}
    assert told["base", "The teacher-student gap"] == "higher"
    assert told["seqkd", "Overconfident hallucination"] == "worse"
    assert told["seqkd", "Self-correction collapse"] == "not compared"
    page = run_html(card, facts, {seed: [] for seed in facts.run.seeds})
    assert "Traps and symptoms, before and after" in page
    assert "no corrections" in page
    assert "by the teacher&#39;s own wrong traces" in page
    pairs_in_all = 1 + 3 + 3 + 3
    assert f"Over all pairs {3 * pairs_in_all} checks of students&#39; completions" in page
    assert f"; {4 * pairs_in_all} completions were left out of the gap" in page
    assert "but for the traps with the original teacher" in page


def test_the_run_s_page_says_what_recovery_is_to_be_read_beside_and_does_not_compare_other_wrong_traces() -> None:
    from dataclasses import replace

    before, after = pairs(0.3, 0.6)
    for one in (*after.original, *after.calibrated):
        gold = figure(0.2, unit="probability") | {"reference": 0.81}
        one["symptoms"]["self_correction_collapse"] = gold | {"student": {"by_source": {"gold": gold}}}
    for one in before.calibrated:
        one["traps"]["gap"]["wrong_trace_preference"]["wrong_traces"] = "corrupted"
    facts = replace(some_facts(-1.0), diagnoses=(before, after))
    card = report_card(facts)
    assert {name: word for student, name, _, _, word in rows(card)}["Wrong-trace preference"] == "not compared"
    page = run_html(card, facts, {seed: [] for seed in facts.run.seeds})
    assert page.count("<small>0.810 after the same, right</small>") == 2
    assert "by right traces with one corrupted step" in page
    svg = against_eta_svg([report(1.0, 0.1), card])
    assert "calibrated teacher, by right traces with one corrupted step" in svg
    assert "calibrated teacher, by the teacher's own wrong traces" in svg


def test_the_knob_s_page_has_a_panel_for_each_figure_that_was_measured() -> None:
    reports = [report(eta, level) for eta, level in ((-1.0, 0.6), (1.0, 0.1))]
    svg = against_eta_svg(reports)
    assert "Wrong-trace preference" in svg
    assert "Self-correction" not in svg
    assert "Degradation: truncated" in svg
    assert "seqkd control" in svg
    assert "base student, original teacher" in svg
    page = knob_curve_html(reports)
    assert "nowhere does it rise" in page
    assert page == knob_curve_html(list(reversed(reports)))


def test_every_student_has_a_marker_and_a_line_of_its_own() -> None:
    reports = [report(eta, level) for eta, level in ((-1.0, 0.6), (1.0, 0.1))]
    for one in reports:
        one["diagnosis"]["pairs"].append(one["diagnosis"]["pairs"][1] | {"student": "gkd"})
    looks = {label: look for label, look, _, _ in _lines(by_eta(reports), "confidence_when_wrong")}
    assert looks["seqkd student"] == mark(0)
    assert looks["gkd student"] == mark(1)
    own, others = mark(0), mark(1)
    assert own.marker != others.marker
    assert own.line != others.line
