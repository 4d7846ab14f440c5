import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from raydistill.diagnose.preference import Rivals, auc, corrupt_step, paired_rate
from raydistill.tasks.arithmetic import Arithmetic, trace

scores = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=4).map(tuple)
some = scores | st.just(())
"""A prompt may have wrong traces alone, or right ones alone."""
rivals = st.lists(st.tuples(some, some), min_size=2, max_size=6).filter(lambda rows: all(map(any, zip(*rows, strict=True))))


@settings(max_examples=80, deadline=None)
@given(rivals)
def test_auc_is_sklearns(rows):
    wrong, right = [s for w, _ in rows for s in w], [s for _, r in rows for s in r]
    expected = roc_auc_score([1] * len(wrong) + [0] * len(right), wrong + right)
    found = auc([Rivals(w, r, paired=False) for w, r in rows])
    assert found.mean == pytest.approx(expected)
    assert found.n == len(rows)


def test_the_interval_of_the_auc_is_that_of_a_bootstrap_over_prompts():
    rng = np.random.default_rng(1)
    shifts = rng.normal(size=150)
    rows = [Rivals(tuple(rng.normal(s, 1, 3)), tuple(rng.normal(s + 0.7, 1, 2)), paired=False) for s in shifts]
    drawn = [auc([rows[i] for i in rng.integers(0, 150, 150)]).mean for _ in range(300)]
    low, high = auc(rows).ci95
    assert high - low == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.15)


def test_paired_rate_counts_by_prompt_and_ties_half():
    rows = [Rivals((1.0, 3.0), (2.0,), paired=False), Rivals((2.0,), (2.0,), paired=False), Rivals((), (1.0,), paired=False)]
    assert paired_rate(rows).mean == 0.5
    assert paired_rate(rows).n == 2


def test_a_corrupted_trace_meets_only_its_original():
    assert paired_rate([Rivals((3.0, 0.0), (2.0, 1.0), paired=True)]).mean == 0.5
    assert Rivals((3.0, 0.0), (2.0, 1.0), paired=True).pairs == [(3.0, 2.0), (0.0, 1.0)]


@pytest.mark.parametrize("style", ["clear", "ramble", "cipher"])
@pytest.mark.parametrize("seed", range(5))
def test_a_corrupted_step_is_one_character_and_not_the_answer(style, seed):
    prompt = Arithmetic().prompts("tune")[seed]
    right = trace(prompt.text, style, random.Random(seed))
    wrong, end = corrupt_step(right, "arithmetic", random.Random(seed))
    changed = [place for place, (a, b) in enumerate(zip(right, wrong, strict=True)) if a != b]
    assert len(changed) == 1
    assert right[changed[0] - 1] == "="
    assert end == changed[0] + 1
    assert Arithmetic().verify(prompt, wrong)
    assert (wrong, end) == corrupt_step(right, "arithmetic", random.Random(seed))


def test_a_trace_without_a_step_cannot_be_corrupted():
    assert corrupt_step("The answer is 4.", "maths", random.Random(0)) is None
    assert corrupt_step("so x = big", "arithmetic", random.Random(0)) is None


def test_a_number_stays_one():
    wrong, end = corrupt_step("2 * 24 = 48 clips", "maths", random.Random(0))
    assert wrong[:end].split(" = ")[1].isdecimal()


@pytest.mark.parametrize("seed", range(20))
def test_what_is_taken_back_is_no_step(seed):
    wrong, end = corrupt_step("7+5=4x7+5=2;2-9=3;#3", "arithmetic", random.Random(seed))
    assert wrong.startswith("7+5=4x7+5=")
    assert end in (11, 17)


@pytest.mark.parametrize("text", ["The answer = a nice number", "so f = g, and x = b", "P(B) = c"])
def test_a_letter_is_a_result_only_of_the_cipher(text):
    assert corrupt_step(text, "maths", random.Random(0)) is None
    assert corrupt_step("Di+h=a;#3", "arithmetic", random.Random(0)) is not None


@pytest.mark.parametrize("seed", range(5))
def test_numbers_are_the_results_beside_letters(seed):
    wrong, end = corrupt_step("a = b, so 2 * 3 = 6 = c", "maths", random.Random(seed))
    assert (wrong[:18], wrong[19:], end) == ("a = b, so 2 * 3 = ", " = c", 19)
