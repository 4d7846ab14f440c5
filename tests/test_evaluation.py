"""From completions and their outcomes to the figures of evaluation.json."""

import statistics

import pytest
from scipy import stats

from raydistill.diagnose.sampled import Sampled
from raydistill.evaluation import figures
from raydistill.rollout.completion import Completion, StopReason
from raydistill.tasks.prompt import Prompt


def wrote(answers: str, rights: list[list[bool]], lengths: list[int], options: tuple[str, ...] = ()) -> Sampled:
    prompts = tuple(Prompt(str(i), f"question {i}", answer, "", options) for i, answer in enumerate(answers))
    length = iter(lengths)
    rows = tuple(tuple(_completion(str(i), g, next(length)) for g in range(len(row))) for i, row in enumerate(rights))
    return Sampled(prompts, rows, tuple(map(tuple, rights)), verifier_failures=1)


def _completion(prompt: str, sample: int, length: int) -> Completion:
    stop = StopReason.LENGTH if length == 9 else StopReason.END
    return Completion(prompt, sample, (1,), (2,) * length, (-0.1,) * length, "x", stop, False, 0)


def test_the_interval_is_over_prompts_and_n_counts_completions():
    rights = [[True, True], [True, False], [False, False], [True, False]]
    found = figures({"sampled": wrote("ABAB", rights, [1, 2, 3, 4, 5, 6, 9, 9])})
    means = [1, 0.5, 0, 0.5]
    half = stats.t.ppf(0.975, 3) * statistics.stdev(means) / 2
    score = found["score"]["sampled"]
    assert (score["mean"], score["n"]) == (0.5, 8)
    assert score["ci95"] == pytest.approx((0.5 - half, 0.5 + half))
    assert found["length"]["sampled"] == pytest.approx(39 / 8)
    assert found["truncated"]["sampled"] == 0.25
    assert found["verifier_failures"] == {"sampled": 1}
    assert "by_option" not in found


def test_by_option_splits_the_score_by_the_right_answer():
    found = figures({"greedy": wrote("ABAB", [[True], [False], [True], [True]], [1] * 4, options=("x", "y"))})
    by = found["by_option"]["greedy"]
    assert {letter: (one["mean"], one["n"]) for letter, one in by.items()} == {"A": (1, 2), "B": (0.5, 2)}
    whole = found["score"]["greedy"]
    assert sum(one["mean"] * one["n"] for one in by.values()) == pytest.approx(whole["mean"] * whole["n"])


def test_completions_read_back_are_the_same(tmp_path):
    sampled = wrote("AB", [[True], [False]], [3, 9])
    (tmp_path / "x.json").write_text(sampled.to_json())
    assert Sampled.read(tmp_path / "x.json", sampled.prompts) == sampled
