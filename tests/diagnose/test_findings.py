import zlib
from dataclasses import replace

import numpy as np
import pytest

from raydistill.diagnose import findings
from raydistill.diagnose.calibration_error import Answer
from raydistill.diagnose.comparer import BINS, TraceDivergence
from raydistill.diagnose.preference import Rivals
from raydistill.diagnose.verdict import figure_in_words
from tests.diagnose.samples import completion, sampled

KS = (1, 10, 50, 100, 200)


def trace(tokens, kl, at_10=None, at_50=None):
    forward = (0.0, kl if at_10 is None else at_10, kl if at_50 is None else at_50, kl, kl)
    by_bin = [0.0] * BINS
    by_bin[0] = kl
    return TraceDivergence(tokens, forward, forward, tuple(by_bin), (tokens, *[0] * (BINS - 1)))


def test_the_share_beyond_k_is_over_all_tokens():
    rows = [[trace(10, 1.0, 0.5, 0.9), trace(5, 2.0, 1.5, 1.9)], [trace(10, 1.0, 0.5, 0.7)]]
    found = findings.tail_noise(rows, KS)
    shares = found["share_beyond"]["forward"]
    assert [shares[k]["value"] for k in ("10", "50", "100")] == pytest.approx([1.5 / 4, 0.5 / 4, 0.0])
    assert found["value"] == shares["50"]["value"]
    assert found["n"] == 2
    assert found["ci95"][0] <= found["value"] <= found["ci95"][1]
    assert found["curve"]["forward"][-1]["value"] == pytest.approx(4 / 25)


def test_each_direction_has_its_own_shares():
    rows = [[replace(trace(10, 1.0, 0.5, 0.9), reverse=(0.0, 0.2, 0.4, 2.0, 2.0))]] * 2
    found = findings.tail_noise(rows, KS)
    shares = found["share_beyond"]
    assert [shares[way]["10"]["value"] for way in ("forward", "reverse")] == pytest.approx([0.5, 0.9])
    assert [found["curve"][way][-1]["value"] for way in ("forward", "reverse")] == pytest.approx([0.1, 0.2])


def test_whether_a_share_is_told_depends_on_the_kl_a_token():
    for tokens, told in ((100, True), (10_000, False)):  # 1e-3 nats are 1e-5 a token, and 1e-7
        value = findings.tail_noise([[trace(tokens, 1e-3, at_50=5e-4)]] * 2, KS)["value"]
        assert value == (pytest.approx(0.5) if told else None)


def test_rounding_does_not_leave_a_share_below_0():
    rows = [[trace(10, 1.0, at_50=1.0 + 1e-12)]] * 2
    assert findings.tail_noise(rows, KS)["value"] == 0


def test_a_small_vocabulary_is_told_by_k_10():
    rows = [[TraceDivergence(4, (0.1, 0.5, 1.0), (0.1, 0.5, 1.0), (0.0,) * BINS, (0,) * BINS)]] * 2
    found = findings.tail_noise(rows, (1, 10, 39))
    assert (found["k"], found["value"]) == (10, 0.5)
    assert found["share_beyond"]["forward"]["50"]["value"] == 0


def test_where_the_kl_is_about_0_shares_and_ratio_have_no_value():
    rows = [[trace(10, 1e-9)], [trace(10, 1e-9)]]
    noise = findings.tail_noise(rows, KS)
    assert (noise["value"], figure_in_words(noise)) == (None, "undefined: the KL is about 0")
    found = findings.off_policy_instability(rows, rows, 2)
    assert "about 0" in found["not measured"]
    assert found["teacher_prefixes"]["value"] < 1e-6


def test_instability_is_the_ratio_of_token_kls():
    teacher, student = [[trace(10, 1.0)], [trace(20, 2.2)]], [[trace(5, 1.0)], [trace(10, 2.2)]]
    found = findings.off_policy_instability(teacher, student, 2)
    assert found["value"] == pytest.approx(2)
    assert found["ci95"] == pytest.approx([2, 2])
    (first,) = found["by_position"]["student_prefixes"]  # no token lies in a later bin
    assert (first["position"], first["tokens"]) == (0, 15)
    assert first["value"] == pytest.approx(3.2 / 15)


def test_a_place_is_that_of_its_bin_s_first_token_and_bins_without_tokens_are_left_out():
    kl, tokens = [0.5, 0.0, 0.25, 0.0], [2, 0, 4, 3]
    rest = [0] * (BINS - len(kl))
    row = TraceDivergence(9, (0.75,), (0.75,), (*kl, *rest), (*tokens, *rest))
    places = findings.off_policy_instability([[row]] * 2, [[row]] * 2, 8)["by_position"]["teacher_prefixes"]
    assert [(one["position"], one["value"]) for one in places] == [(0, 0.25), (16, 0.0625), (24, 0.0)]


def test_the_gradient_s_ratio_is_the_student_s_over_the_teacher_s():
    teachers, students = [1.0, 2.0, 3.0, 5.0], [2.0, 7.0, 3.0, 11.0]
    found = findings.gradient_noise(teachers, students)
    assert found["value"] == pytest.approx(np.var(students, ddof=1) / np.var(teachers, ddof=1))
    assert found["student_prefixes"]["variance"]["value"] == pytest.approx(np.var(students, ddof=1))
    assert found["student_prefixes"]["norms"] == students


def test_the_gap_is_what_the_authors_text_costs_the_other():
    found = findings.score_gap([[-1.0, -3.0], [-1.0], []], [[-2.0, -4.0], [-4.0], []])
    assert found["value"] == pytest.approx(2)
    assert found["n"] == 2
    assert "not measured" in findings.score_gap([[]], [[]])


def test_preference_has_both_models_and_the_source():
    rivals = [Rivals((1.0,), (2.0,), paired=False), Rivals((3.0,), (2.0,), paired=False)]
    found = findings.preference(rivals, rivals[:1], "own", 2)
    assert (found["value"], found["wrong_traces"], found["pairs"]) == (0.5, "own", 2)
    assert found["teacher"]["paired_rate"]["value"] == 0
    assert 0 <= found["student"]["auc"]["ci95"][0] <= found["student"]["auc"]["ci95"][1] <= 1


def test_overconfidence_of_a_student_without_answers_is_not_measured():
    right = [[Answer(0.5, True)], [Answer(0.5, False)]]
    found = findings.overconfident_hallucination([[]], right)
    assert found["not measured"] == "no completion has an answer"
    assert found["teacher"]["calibration_error"]["value"] == 0


def test_overconfidence_has_a_sign_where_the_calibration_error_has_none():
    too_sure = [[Answer(0.9, at % 2 == 0)] * 2 for at in range(40)]
    unsure = [[Answer(0.2, at % 2 == 0)] * 2 for at in range(40)]
    found = findings.overconfident_hallucination(too_sure, unsure)
    student, teacher = found["student"]["overconfidence"], found["teacher"]["overconfidence"]
    assert (student["value"], teacher["value"]) == (pytest.approx(0.4), pytest.approx(-0.3))
    assert student["ci95"][0] > 0 > teacher["ci95"][1]
    assert (student["n"], student["reference"]) == (40, 0.0)
    # answers of one prompt that always agree tell no more than one
    assert student["ci95"] == pytest.approx(
        findings.overconfident_hallucination([r[:1] for r in too_sure], unsure)["student"]["overconfidence"]["ci95"]
    )


def test_degradation_compares_as_many_completions_of_each():
    teacher = sampled([[("a b c d e", True), ("f g", True)], [("x y z", True), ("\ufffd", False)]])
    student = sampled([[("a a a a a a", True)], [("x y z", True)]])
    found = findings.local_decoding_degradation(student, teacher)
    assert found["value"] == pytest.approx((1 - 1 / 3) / 2)
    assert found["student"]["distinct"]["n"] == found["teacher"]["distinct"]["n"] == 2
    assert found["teacher"]["invalid_utf8"]["value"] == 0.25  # shares are of all completions
    assert found["student"]["truncated"]["value"] == 0
    assert found["student"]["distinct"]["value"] == pytest.approx(3 / 7)  # aa, xy, yz of 5 + 2 pairs
    data = b"a a a a a a\nx y z"
    assert found["student"]["compression_ratio"]["value"] == pytest.approx(len(data) / len(zlib.compress(data, 9)))


def test_a_completion_cut_within_a_character_is_only_truncated():
    both = sampled([[("\ufffd", True)], [("b", True)]])
    cut = replace(both, completions_BG=((completion("\ufffd", [2], [-0.1], truncated=True),), both.completions_BG[1]))
    found = findings.local_decoding_degradation(cut, both)
    assert [found[name]["invalid_utf8"]["value"] for name in ("student", "teacher")] == [0, 0.5]
    assert found["student"]["truncated"]["value"] == 0.5


def test_figures_of_no_text_say_why_they_have_no_value():
    empty = sampled([[("", True)]])
    own = findings.local_decoding_degradation(empty, empty)["student"]
    assert figure_in_words(own["distinct"]) == "undefined: no completion has two words"
    assert figure_in_words(own["compression_ratio"]) == "undefined: there is no text"
    still = findings.gradient_noise([0.0] * 3, [0.0] * 3)["teacher_prefixes"]["variation"]
    assert figure_in_words(still) == "undefined: all gradients are 0"


def test_the_headline_of_degradation_is_the_difference_of_its_parts():
    teacher = sampled([[("a b c d e", True), ("f g f g f g f g", True)], [("x y z", True), ("h h h h h h", False)]])
    student = sampled([[("a a a a a a", True)], [("x y z", True)]])
    found = findings.local_decoding_degradation(student, teacher)
    assert found["value"] == pytest.approx(found["student"]["repeated"]["value"] - found["teacher"]["repeated"]["value"])
    assert found["teacher"]["repeated"]["value"] == pytest.approx((3 / 5 + 2 / 3) / 4)


def without_reference(tree, prefix=""):
    """Places of figures that have a value and no reference."""
    if not isinstance(tree, dict):
        return []
    deeper = [place for name, one in tree.items() for place in without_reference(one, f"{prefix}/{name}")]
    return [prefix, *deeper] if tree.get("value") is not None and tree["reference"] is None else deeper


def test_every_figure_of_a_student_has_a_reference():
    teacher = sampled([[("a b c d e #3", True), ("#3", True)], [("#4 x y z", True), ("h h h h h h", False)]])
    student = sampled([[("#1", False), ("#1", False)], [("x y z #3", True), ("#3", True)]])
    sure = [[Answer(0.9, False), Answer(0.3, True)], [Answer(0.4, True)]]
    found = {
        "gradient": findings.gradient_noise([1.0, 2.0, 4.0], [1.0, 3.0, 2.0]),
        "overconfidence": findings.overconfident_hallucination(sure, sure[::-1]),
        "consistency": findings.self_consistency(student, teacher, "arithmetic"),
        "degradation": findings.local_decoding_degradation(student, teacher),
    }
    places = without_reference(found)
    assert places
    assert [place for place in places if "student" in place] == []
    assert found["gradient"]["student_prefixes"]["variance"]["reference"] == found["gradient"]["teacher_prefixes"]["variance"]["value"]
    assert found["degradation"]["student"]["distinct"]["reference"] == found["degradation"]["teacher"]["distinct"]["value"]
    # right with probability .9, .3 and .4: of 1.4 wrong ones to be expected, .09 + .21 + .24
    assert found["overconfidence"]["student"]["confidence_when_wrong"]["reference"] == pytest.approx(0.54 / 1.4)
