import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from raydistill.diagnose import findings
from raydistill.diagnose.self_consistency import answer_text, normalised, vote, votes
from tests.diagnose.samples import completion, sampled

rows = st.lists(st.tuples(st.sampled_from(["1", "2", "3", None]), st.booleans()), max_size=9)


@given(rows)
def test_shares_and_entropy_are_those_of_the_counts(answers):
    texts = [text for text, _ in answers if text is not None]
    found = vote(answers)
    if len(texts) < 2:
        assert found is None
        return
    counts = sorted((texts.count(text) for text in set(texts)), reverse=True)
    assert found.shares == pytest.approx([count / len(texts) for count in counts])
    assert found.entropy == pytest.approx(stats.entropy(counts), abs=1e-12)
    assert 0 <= found.entropy <= math.log(len(texts)) + 1e-12
    assert found.answers == len(texts)
    assert found.as_answer.confidence == found.shares[0]


def test_the_majority_is_right_where_its_answer_is_and_the_first_given_wins_a_tie():
    assert not vote([("7", True), ("3", False), ("3", False)]).right
    assert vote([("7", True), ("3", False)]).right
    assert not vote([("3", False), ("7", True)]).right


@pytest.mark.parametrize(
    ("written", "expected"), [(" 1,234,567. ", "1234567"), ("$ 5.50", "5.50"), ("A B", "ab"), ("1,23", "1,23"), ("(1, 200)", "(1,200)")]
)
def test_answers_that_are_written_alike(written, expected):
    assert normalised(written) == expected


def test_an_answer_is_the_text_of_its_span():
    assert answer_text(completion("7+5=2;é=3;# 3 ", [1], [0.0]), "arithmetic") == "3"
    assert answer_text(completion("#3", [1], [0.0], truncated=True), "arithmetic") is None
    assert answer_text(completion("#3", [1], [0.0], special=True), "arithmetic") is None
    assert answer_text(completion("none", [1], [0.0]), "arithmetic") is None


def test_as_many_completions_vote_as_are_asked_for():
    one = sampled([[("#3", True), ("#3", True), ("#4", False)], [("no", False), ("#1", False), ("#2", False)]])
    assert [found and found.shares for found in votes(one, "arithmetic", 2)] == [(1.0,), None]
    assert votes(one, "arithmetic", 3)[0].shares == pytest.approx((2 / 3, 1 / 3))


def test_findings_are_over_prompts_with_a_vote():
    student = sampled([[("#3", True), ("#4", False)], [("#1", False), ("#1", False)], [("#1", False), ("x", False)]])
    teacher = sampled([[("#3", True), ("#3", True), ("#4", False)], [("#1", True), ("#1", True)], [("#1", True), ("#1", True)]])
    found = findings.self_consistency(student, teacher, "arithmetic")
    assert found["samples"] == 2
    own = found["student"]
    assert (own["majority_right"]["value"], own["majority_right"]["n"]) == (0.5, 2)
    assert own["majority_share"]["value"] == pytest.approx(0.75)
    assert own["entropy"]["value"] == pytest.approx(math.log(2) / 2)
    assert own["calibration_error"]["value"] == pytest.approx(0.5 * 0.5 + 0.5 * 1.0)  # two bins: .5 and right, 1 and wrong
    assert found["teacher"]["calibration_error"]["value"] == 0
    assert own["bins"][0]["n"] == 1
    assert found["teacher"]["majority_right"]["value"] == 1


def test_without_a_vote_nothing_is_measured():
    none = sampled([[("x", False), ("#1", True)]])
    found = findings.self_consistency(none, none, "arithmetic")
    assert "two answers" in found["student"]["not measured"]
