"""What a sweep says: analytic cases, an independent reference, properties."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raydistill.report.card import report_card
from raydistill.report.scores import Json
from raydistill.report.sweep_analysis import (
    Curve,
    Recommendation,
    analysis,
    curves,
    first_method,
    pareto,
    points,
    ranks,
    recommendations,
    reversals,
    steps,
)
from tests.report.synthetic_facts import some_facts

TITLES = ["Best student", "Protection at no cost to the teacher", "Balance"]


def score(mean: float, greedy: float | None = None) -> Json:
    around = [mean - 0.01, mean + 0.01]
    return {"sampled": {"mean": mean, "ci95": around}, "greedy": {"mean": mean if greedy is None else greedy, "ci95": around}}


def student(by_seed: Sequence[float], method: str = "seqkd", control: float = 0.4, greedy: float | None = None) -> Json:
    """Surely better than the control if its mean is."""
    mean = sum(by_seed) / len(by_seed)
    gain = mean - control
    return {
        "method": method,
        "calibrated": score(mean, greedy),
        "control": score(control),
        "ratio": mean / control,
        "ratio_ci95": None,
        "differences": {"control": {"sampled": {"mean": gain, "ci95": [gain - 0.01, gain + 0.01]}}},
        "per_seed": [{"seed": seed, "calibrated": value} for seed, value in enumerate(by_seed, 1)],
    }


def done(id_: str, eta: float, *students: Json, teacher: float = 0.99, kl: float | None = 0.5, **changes: Any) -> Json:
    """A trial; `changes` are claims, split, or `over`, its other overrides."""
    kept = changes.get("teacher_kept", True)
    report = {
        "split": changes.get("split", "report"),
        "prompts": 1000,
        "seeds": [1, 2, 3],
        "knob": {"eta": eta},
        "teacher": {
            "calibrated": score(teacher),
            "difference_ci95": [-0.001 if kept else -0.05, 0.002],
            "difference": {"sampled": {"mean": 0.0, "ci95": [-0.001 if kept else -0.05, 0.002]}},
            "kl_per_sequence": kl,
        },
        "students": list(students),
        "claims": {"collapse": changes.get("collapse", False), "teacher_kept": kept},
    }
    overrides = {"knob.eta": eta, **changes.get("over", {})}
    return {"id": id_, "overrides": overrides, "eta": eta, "status": "done", "report": report, "error": None}


def failed(id_: str, eta: float, **over: Any) -> Json:
    return {"id": id_, "overrides": {"knob.eta": eta, **over}, "eta": eta, "status": "failed", "report": None, "error": "no room"}


def ids(trials: Sequence[Json]) -> list[str]:
    return [trial["id"] for trial in trials]


def chosen(trials: Sequence[Json]) -> list[str | None]:
    return [one.id for one in recommendations(trials)]


def by_title(trials: Sequence[Json]) -> dict[str, Recommendation]:
    return {one.title: one for one in recommendations(trials)}


def test_eta_alone_makes_one_curve_without_a_label_in_order_of_eta():
    trials = [
        done("b", 1.0, over={"learner.lr": 0.001}),
        failed("c", 2.0, **{"learner.lr": 0.001}),
        done("a", -1.0, over={"learner.lr": 0.001}),
    ]
    [curve] = curves(trials)
    assert curve.label == ""
    assert ids(curve.trials) == ["a", "b", "c"]
    assert len(curve.reports) == 2


def test_curves_share_all_other_overrides_and_come_in_order_of_first_appearance():
    fields = [{"learner.lr": rate, "task.kind": "maths", "learner.lora": lora} for rate in (0.002, 1e-05) for lora in (None, {"rank": 8})]
    trials = [done(f"{place}{eta:+g}", eta, over=over) for eta in (1.0, -1.0) for place, over in enumerate(fields)]
    found = curves(trials)
    assert [curve.label for curve in found] == [
        "learner.lr 0.002, learner.lora null",
        'learner.lr 0.002, learner.lora {"rank": 8}',
        "learner.lr 1e-05, learner.lora null",
        'learner.lr 1e-05, learner.lora {"rank": 8}',
    ]
    assert [ids(curve.trials) for curve in found] == [[f"{place}-1", f"{place}+1"] for place in range(4)]


def test_a_field_that_a_trial_does_not_override_is_another_curve():
    assert [curve.label for curve in curves([done("a", 1.0, over={"learner.lr": 0.1}), done("b", 1.0)])] == ["learner.lr 0.1", ""]


def test_what_a_schedule_changes_is_another_curve_and_no_step_from_eta_to_eta():
    changed = [{"after": 5, "lr": 0.002, "kl_coef": 0.1}, {"after": 10, "lr": 0.002, "kl_coef": 0.3}]
    same = {"learner.lr": 0.004, "learner.kl_coef": 0.1}
    trials = [
        done("a", 1, student([0.5]), over=same),
        done("b", 1, student([0.4]), over=same) | {"schedule": changed},
        done("c", 1, student([0.3]), over=same),
    ]
    told = "learner.lr 0.002 after 5 steps, learner.kl_coef 0.3 after 10 steps"
    assert [(curve.label, ids(curve.trials)) for curve in curves(trials)] == [("", ["a", "c"]), (told, ["b"])]
    assert steps(trials) == []


def test_no_trials_make_no_curves():
    assert curves([]) == []
    assert points([]) == []
    assert ranks([]) == steps([]) == []
    assert first_method([]) is None


FIGURES = st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.3, 0.9]), st.floats(0, 1)), max_size=9)


@given(FIGURES)
def test_the_fronts_are_what_a_loop_over_all_pairs_leaves(figures: list[tuple[float, float]]):
    trials = [done(str(place), float(place), student([low]), teacher=high) for place, (low, high) in enumerate(figures)]
    fronts = pareto([*trials, failed("f", 9.0), done("without", 8.0)])
    for front, sign in ((fronts.open, 1), (fronts.protected, -1)):
        expected = set()
        for place, (low, high) in enumerate(figures):
            beaten = False
            for other_low, other_high in figures:
                as_good = other_high >= high and sign * other_low >= sign * low
                if as_good and (other_low, other_high) != (low, high):
                    beaten = True
            if not beaten:
                expected.add(str(place))
        assert {point.trial["id"] for point in front} == expected
        scores = [point.distillability for point in front]
        assert scores == sorted(scores)


def test_fronts_by_hand():
    trials = [
        done("both", 2.0, student([0.9]), teacher=0.98),
        done("useful", 0.0, student([0.4]), teacher=0.99),
        done("beaten", 1.0, student([0.8]), teacher=0.97),
        done("guarded", -1.0, student([0.1]), teacher=0.97),
    ]
    fronts = pareto(trials)
    assert [point.trial["id"] for point in fronts.open] == ["useful", "both"]
    assert [point.trial["id"] for point in fronts.protected] == ["guarded", "useful"]


def test_fronts_go_by_the_first_method_of_the_sweep():
    trials = [failed("f", 0.0), done("a", 1.0, student([0.5]), student([0.1], "gkd")), done("b", 2.0, student([0.9], "gkd"))]
    assert first_method(trials) == "seqkd"
    assert [point.trial["id"] for point in points(trials)] == ["a"]


def test_recommends_the_highest_the_lowest_and_the_nearest_with_nine_tenths():
    trials = [
        done("low", -2.0, student([0.1]), kl=0.9, collapse=True),
        done("middle", -1.0, student([0.2]), kl=0.4, collapse=True),
        done("same", 0.0, student([0.4]), kl=0.0),
        done("some", 0.5, student([0.7]), kl=0.2),
        done("nearly", 1.0, student([0.85]), kl=0.4),
        done("best", 2.0, student([0.9]), kl=1.1),
        done("spoilt", 3.0, student([1.0]), kl=2.0, teacher_kept=False),
    ]
    found = by_title(trials)
    assert list(found) == TITLES
    assert [one.id for one in found.values()] == ["best", "low", "nearly"]
    assert "0.900 [0.890, 0.910]" in found["Best student"].reason
    assert "of 6 trials" in found["Best student"].reason
    assert "×0.25" in found["Protection at no cost to the teacher"].reason
    assert "KL 0.40" in found["Balance"].reason
    assert "+0.450 [+0.440, +0.460]" in found["Balance"].reason
    assert "+0.500" in found["Balance"].reason
    for one in found.values():
        assert one.reason.endswith(".")
        assert one.basis.startswith("It rests on 3 seeds.")
        assert "the same 1,000 prompts of the report split" in one.basis


def test_nine_tenths_of_the_gain_are_enough_to_the_digit():
    best, nearly, short = (done(str(mean), mean, student([mean]), kl=kl) for mean, kl in ((0.9, 1.0), (0.85, 0.5), (0.849, 0.1)))
    assert chosen([best, nearly, short])[2] == "0.85"


def test_a_gain_within_its_interval_is_no_balance():
    doubtful = student([0.9])
    doubtful["differences"]["control"]["sampled"]["ci95"] = [-0.1, 1.1]
    assert chosen([done("a", 1.0, doubtful, kl=0.1), done("b", 2.0, student([0.9]), kl=0.7)])[2] == "b"
    alone = by_title([done("a", 1.0, doubtful)])["Balance"]
    assert alone.id is None
    assert "beat the control" in alone.reason
    assert "+0.500 [−0.100, +1.100]" in alone.reason


def test_no_balance_where_what_is_surely_better_gains_too_little_or_its_kl_is_not_known():
    doubtful = student([0.9])
    doubtful["differences"]["control"]["sampled"]["ci95"] = [-0.1, 1.1]
    for other in (done("b", 0.5, student([0.6])), done("b", 0.5, student([0.9]), kl=None)):
        balance = by_title([done("a", 1.0, doubtful), other])["Balance"]
        assert balance.id is None
        assert "90% of the best student's gain of +0.500" in balance.reason


@pytest.mark.parametrize("order", [1, -1])
def test_ties_go_to_the_smaller_kl(order: int):
    high = [
        done("far", 2.0, student([0.9]), kl=0.9),
        done("near", 1.0, student([0.9]), kl=0.3),
        done("unknown", 3.0, student([0.9]), kl=None),
    ]
    low = [done("far", -2.0, student([0.1]), kl=0.9, collapse=True), done("near", -1.0, student([0.1]), kl=0.3, collapse=True)]
    assert chosen(high[::order])[0] == "near"
    assert chosen(low[::order])[1] == "near"


def test_further_ties_go_to_the_earlier_trial():
    trials = [done(name, 1.0, student([0.3]), kl=0.3, collapse=True) for name in "ba"]
    assert chosen(trials)[:2] == ["b", "b"]
    better = [done(name, 1.0, student([0.9]), kl=0.3) for name in "ba"]
    assert chosen(better)[2] == "b"


def test_none_is_named_where_no_teacher_is_kept():
    trials = [done("a", 1.0, student([0.9]), teacher_kept=False), done("b", -1.0, student([0.1]), teacher_kept=False, collapse=True)]
    for one in recommendations(trials):
        assert one.trial is None
        assert one.id is None
        assert "none keeps its teacher" in one.reason
        assert "−0.050" in one.reason
        assert "−0.010" in one.reason
        assert "It rests on 3 seeds" in one.basis


def test_none_is_named_where_none_collapses():
    protection = by_title([done("a", -1.0, student([0.3])), done("b", 1.0, student([0.9]))])[TITLES[1]]
    assert protection.id is None
    assert protection.reason == "No trial claims collapse, of 2 trials with the teacher kept; the lowest ratio is ×0.75 [no interval]."


def test_a_collapse_that_cost_the_teacher_is_not_protection():
    trials = [done("a", -1.0, student([0.1]), collapse=True, teacher_kept=False), done("b", 1.0, student([0.9]))]
    protection = by_title(trials)[TITLES[1]]
    assert protection.id is None
    assert "Collapse is claimed by 1 trial, but none keeps its teacher" in protection.reason


@pytest.mark.parametrize("trials", [[], [failed("f", 1.0)], [done("a", 1.0)]])
def test_none_is_named_where_there_are_no_students(trials: list[Json]):
    assert chosen(trials) == [None, None, None]
    assert {one.reason for one in recommendations(trials)} == {"No trial that is done has students."}
    assert all(bool(one.basis) == any(trial["report"] for trial in trials) for one in recommendations(trials))


def test_on_the_tune_split_they_say_where_to_quote_from():
    trials = [done("a", 1.0, student([0.9]), split="tune")]
    assert "of the tune split; figures to quote come from the report split" in recommendations(trials)[0].basis


def test_a_control_that_scores_nothing_has_no_ratio():
    nothing = {**student([0.3]), "ratio": None}
    assert by_title([done("a", 1.0, nothing)])[TITLES[1]].reason == "No trial claims collapse, of 1 trial with the teacher kept."


def test_ranks_are_scipys_for_each_curve_and_method():
    means = {0.1: [0.3, 0.1, 0.5, 0.9], 0.2: [0.9, 0.5, 0.4, 0.1]}
    greedy = [0.2, 0.2, 0.6, 0.4]
    etas = (2.0, -1.0, 0.0, 1.0)
    trials = [
        done(f"{lr}{eta}", eta, student([mean], greedy=second), student([1 - mean], "gkd"), over={"learner.lr": lr})
        for lr, row in means.items()
        for eta, mean, second in zip(etas, row, greedy, strict=True)
    ]
    found = ranks([*trials, failed("f", 3.0, **{"learner.lr": 0.1})])
    assert [(rank.curve, rank.method, rank.etas) for rank in found] == [
        (f"learner.lr {lr}", method, 4) for lr in means for method in ("seqkd", "gkd")
    ]
    for rank, row in zip(found[::2], means.values(), strict=True):
        assert rank.sampled == pytest.approx(stats.spearmanr(etas, row).statistic)
        assert rank.greedy == pytest.approx(stats.spearmanr(etas, greedy).statistic)
    for first, second in zip(found[::2], found[1::2], strict=True):
        assert second.sampled == pytest.approx(-first.sampled)


def test_the_rank_of_one_eta_is_undefined():
    [rank] = ranks([done("a", 1.0, student([0.5]))])
    assert (rank.etas, rank.sampled, rank.greedy) == (1, None, None)


def test_reversals_are_where_neighbours_fall_with_scipys_paired_interval():
    scores = {0.0: [0.50, 0.52, 0.54], -1.0: [0.30, 0.31, 0.35], 1.0: [0.40, 0.44, 0.43], 2.0: [0.41, 0.40, 0.42]}
    trials = [done(f"eta{eta:+g}", eta, student(row)) for eta, row in scores.items()]
    assert [(step.below["eta"], step.above["eta"]) for step in steps(trials)] == [(-1.0, 0.0), (0.0, 1.0), (1.0, 2.0)]
    found = reversals([*trials, failed("f", 0.5)])
    assert [(step.below["id"], step.above["id"]) for step in found] == [("eta+0", "eta+1"), ("eta+1", "eta+2")]
    for step in found:
        low, high = stats.ttest_rel(scores[step.above["eta"]], scores[step.below["eta"]]).confidence_interval(0.95)
        assert step.ci95 == (pytest.approx(low), pytest.approx(high))
        assert step.difference == pytest.approx((low + high) / 2)
    assert [step.beyond for step in found] == [True, False]


def test_a_rise_beyond_its_interval_is_no_reversal():
    [step] = steps([done("a", 0.0, student([0.1, 0.11, 0.12])), done("b", 1.0, student([0.8, 0.81, 0.82]))])
    assert not step.falls
    assert not step.beyond


def test_a_reversal_of_one_seed_has_no_interval():
    [step] = reversals([done("a", 0.0, student([0.5])), done("b", 1.0, student([0.2]))])
    assert step.difference == pytest.approx(-0.3)
    assert step.ci95 is None
    assert not step.beyond


def test_scores_that_are_equal_but_for_rounding_are_no_reversal():
    assert reversals([done("a", 0.0, student([0.1, 0.2, 0.3])), done("b", 1.0, student([0.3, 0.1, 0.2]))]) == []


def test_only_seeds_that_both_have_are_paired():
    fewer = student([0.1, 0.2, 0.3])
    fewer["per_seed"] = [{"seed": 3, "calibrated": 0.3}, {"seed": 2, "calibrated": 0.2}, {"seed": 9, "calibrated": 0.0}]
    [step] = reversals([done("a", 0.0, student([0.9, 0.5, 0.7])), done("b", 1.0, fewer)])
    assert step.difference == pytest.approx(-0.35)
    assert step.ci95 is not None
    fewer["per_seed"] = [{"seed": 9, "calibrated": 0.2}]
    [step] = reversals([done("a", 0.0, student([0.9, 0.5, 0.7])), done("b", 1.0, fewer)])
    assert (step.difference, step.ci95) == (pytest.approx(-0.5), None)


def test_curves_are_not_compared_with_each_other():
    trials = [done("a", 0.0, student([0.9]), over={"learner.lr": 0.1}), done("b", 1.0, student([0.1]), over={"learner.lr": 0.2})]
    assert steps(trials) == []


def test_reads_what_a_report_card_holds():
    trials = [done(f"eta{eta:+g}", eta) | {"report": report_card(some_facts(eta))} for eta in (-2.0, 0.0, 2.0)]
    assert chosen(trials) == ["eta+2", "eta-2", "eta+2"]
    assert [rank.sampled for rank in ranks(trials)] == [pytest.approx(1.0)] * 2
    assert reversals(trials) == []
    assert isinstance(curves(trials)[0], Curve)


def test_the_analysis_is_json_that_names_trials_by_their_ids():
    trials = [
        done("low", -1.0, student([0.11, 0.12, 0.13]), collapse=True),
        done("no", 0.0, student([0.4, 0.4, 0.4])),
        done("high", 1.0, student([0.9, 0.9, 0.9])),
        done("over", 2.0, student([0.8, 0.79, 0.78])),
    ]
    found = json.loads(json.dumps(analysis([*trials, failed("bad", 3.0)]), allow_nan=False))
    assert [(one["for"], one["trial"]) for one in found["recommendations"]] == list(zip(TITLES, chosen(trials), strict=True))
    assert found["pareto"] == {"open": ["high"], "protected": ["low"]}
    assert found["spearman"] == [{"curve": "", "method": "seqkd", "etas": 4, "sampled": pytest.approx(0.8), "greedy": pytest.approx(0.8)}]
    (fall,) = found["reversals"]
    assert (fall["trials"], fall["beyond"]) == (["high", "over"], True)
    assert analysis([]) == {
        "recommendations": analysis([])["recommendations"],
        "pareto": {"open": [], "protected": []},
        "spearman": [],
        "reversals": [],
    }
