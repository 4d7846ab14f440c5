"""From completions and their outcomes to the figures of evaluation.json."""

import json
import statistics
from dataclasses import replace

import pytest
from scipy import stats

from raydistill.diagnose.sampled import Sampled
from raydistill.evaluation import _say, figures, option_figures
from raydistill.rollout.completion import Completion, StopReason
from raydistill.scoring.score import SequenceScore
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


GROUPS = ["Level 10", "", "Level 2", "Level 10"]


def test_by_group_splits_the_score_by_level_in_natural_order():
    sampled = wrote("ABAB", [[True, True], [True, False], [False, False], [True, False]], [1] * 8)
    grouped = replace(sampled, prompts=tuple(replace(one, group=group) for one, group in zip(sampled.prompts, GROUPS, strict=True)))
    found = figures({"sampled": grouped})
    by = found["by_group"]["sampled"]
    assert [(group, one["mean"], one["n"]) for group, one in by.items()] == [("Level 2", 0, 2), ("Level 10", 0.75, 4), ("", 0.5, 2)]
    half = stats.t.ppf(0.975, 1) * statistics.stdev([1, 0.5]) / 2**0.5
    assert by["Level 10"]["ci95"] == pytest.approx((0.75 - half, 0.75 + half))
    assert by["Level 2"]["ci95"] is None
    assert sum(one["mean"] * one["n"] for one in by.values()) == pytest.approx(found["score"]["sampled"]["mean"] * 8)
    assert found | {"by_group": None} == figures({"sampled": sampled}) | {"by_group": None}
    assert "by_group" not in figures({"sampled": sampled})


def test_options_by_group_are_those_of_its_questions_alone():
    scores = [[SequenceScore(-float(nats), 1, 1, 0.0) for nats in row] for row in ((1, 2), (2, 1), (1, 1), (1, 3))]
    prompts = [Prompt(str(i), "", "A", "", ("x", "y"), group) for i, group in enumerate(GROUPS)]
    found = option_figures(scores, prompts)
    assert found["acc"]["mean"] == (1 + 0 + 0.5 + 1) / 4
    by = found.pop("by_group")
    assert list(by) == ["Level 2", "Level 10", ""]
    assert {group: (one["acc"]["mean"], one["acc"]["n"], one["ties"]) for group, one in by.items()} == {
        "Level 2": (0.5, 1, 1),
        "Level 10": (1, 2, 0),
        "": (0, 1, 0),
    }
    assert by["Level 10"] == option_figures([scores[0], scores[3]], [replace(prompts[0], group=""), replace(prompts[3], group="")])
    assert found == option_figures(scores, [replace(prompt, group="") for prompt in prompts])


def test_the_table_has_a_row_for_each_group_and_kind(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    prompts = tuple(Prompt(str(i), "", "A", "", ("x", "y"), group) for i, group in enumerate([*GROUPS[:3], "[red]x"]))
    sampled = replace(wrote("AAAA", [[True, True], [True, False], [False, False], [True, True]], [1] * 8), prompts=prompts)
    scores = [[SequenceScore(-1.0, 1, 1, 0.0), SequenceScore(-2.0, 1, 1, 0.0)]] * 4
    found = {"model": "m", "prompts": 4, "split": "report", "options": option_figures(scores, prompts)}
    _say(json.loads(json.dumps(found | figures({"sampled": sampled, "greedy": sampled}))))
    out = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in out.splitlines() if line.startswith("│")]
    names = [row[0] for row in rows]
    groups = ["[red]x", "Level 2", "Level 10", "no group"]
    assert names[-18:] == [f"{kind}, {group}" for kind in ("sampled", "greedy") for group in groups] + [
        *(f"likeliest option, {name}" for name in ("acc", "acc_norm")),
        *(f"likeliest option, {name}, {group}" for name in ("acc", "acc_norm") for group in groups),
    ]
    assert rows[names.index("sampled, Level 2")][1:4] == ["0.000", "-", "2"]
