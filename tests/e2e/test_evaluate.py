"""`raydistill evaluate` as a user calls it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from raydistill.config.evaluate import Evaluate
from raydistill.config.load import load_job
from raydistill.tasks.make import make_task
from tests.e2e.conftest import workflow

SMALL = ["evaluation.prompts=20", "evaluation.samples=2", "rollout.engine=transformers"]

evaluate = partial(workflow, "evaluate")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    ended = evaluate(*SMALL, "--out", str(folder))
    assert ended.code == 0, ended.err
    assert "share right" in ended.out
    return folder


def test_scores_have_intervals_and_n(run) -> None:
    found = json.loads((run / "evaluation.json").read_text())
    for kind, n in (("sampled", 40), ("greedy", 20)):
        score = found["score"][kind]
        assert score["n"] == n
        assert 0.8 < score["mean"] <= 1
        assert score["ci95"][0] <= score["mean"] <= score["ci95"][1]
        kept = json.loads((run / "completions" / f"{kind}.json").read_text())
        assert sum(map(sum, kept["right"])) == pytest.approx(score["mean"] * n)
        lengths = [len(one["token_ids"]) for row in kept["completions"] for one in row]
        assert found["length"][kind] == pytest.approx(sum(lengths) / n)
    assert found["verifier_failures"] == {"sampled": 0, "greedy": 0}
    assert found["seconds"]["sample"] > 0
    assert found["options"] is None


def test_a_resumed_evaluation_does_not_sample_again(run) -> None:
    written, config = (run / "evaluation.json").read_text(), (run / "config.yaml").read_text()
    (run / "evaluation.json").unlink()
    refused = evaluate(*SMALL, "--out", str(run))
    assert (refused.code, "--resume" in refused.err) == (2, True)
    stamps = {path: path.stat().st_mtime_ns for path in (run / "completions").iterdir()}
    resumed = evaluate(*SMALL, "--resume", "--out", str(run))
    assert resumed.code == 0, resumed.err
    assert "sampling" not in resumed.err
    assert {path: path.stat().st_mtime_ns for path in (run / "completions").iterdir()} == stamps
    again = json.loads((run / "evaluation.json").read_text())
    assert again | {"seconds": 0} == json.loads(written) | {"seconds": 0}
    assert (run / "config.yaml").read_text() == config


def test_scores_by_group_on_a_split_with_columns_of_its_own(tmp_path) -> None:
    """Greedy and by option, beside what the folder keeps of each prompt."""
    rows = [{"question": f"{n}+1=", "options": ["2", str(n + 1)], "answer": "B"} for n in range(10, 40)]
    asked = [{"q": f"{n}-5=", "o": [str(n - 5), "3"], "right": 0, "level": f"Level {n % 11}" if n % 3 else None} for n in range(10, 40)]
    for name, some in (("train", rows), ("report", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    own = f"{{source: {tmp_path}/report.jsonl, question: q, options: o, answer: right, answer_is: index, group: level}}"
    task = [f"task={{kind: choice, data: {{train: {tmp_path}/train.jsonl}}}}", f"task.data.report={own}"]
    folder = tmp_path / "run"
    more = ["evaluation={samples: 0, options: {}}", "rollout.engine=transformers"]
    ended = evaluate(*task, *more, "--out", str(folder))
    assert ended.code == 0, ended.err
    found = json.loads((folder / "evaluation.json").read_text())
    assert found["prompts"] == 30

    prompts = make_task(load_job(Evaluate, folder / "config.yaml").task).prompts("report")
    rights = [row[0] for row in json.loads((folder / "completions" / "greedy.json").read_text())["right"]]
    likeliest = [row[0]["logprob"] > row[1]["logprob"] for row in json.loads((folder / "options.json").read_text())]
    for by, name, each in ((found["by_group"]["greedy"], None, rights), (found["options"]["by_group"], "acc", likeliest)):
        assert list(by) == [*(f"Level {n}" for n in range(11) if f"Level {n}" in by), ""]
        assert set(by) == {row["level"] or "" for row in asked}
        for group, score in by.items():
            own_values = [value for prompt, value in zip(prompts, each, strict=True) if prompt.group == group]
            figure = score[name] if name else score
            assert (figure["mean"], figure["n"]) == (pytest.approx(sum(own_values) / len(own_values)), len(own_values))
    for row in ("greedy, Level 10", "greedy, no group", "likeliest option, acc, Level 2", "likeliest option, acc_norm, no group"):
        assert row in ended.out, ended.out


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--model", "demo:techer"], ["model.model", "demo:teacher"]),
        (["--model", "no/such/folder/here"], ["model.model"]),
        (["evaluation.options={}"], ["evaluation.options", "arithmetic task has no options"]),
        (["max_new_tokens=127"], ["max_new_tokens", "the context of model.model (128)"]),
        (["modle.model=x"], ["did you mean 'model'"]),
        (
            ["task={kind: maths, data: {train: x.jsonl, report: {source: y.jsonl, qestion: q}}}"],
            ["task.data.report", "did you mean 'question'"],
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, names) -> None:
    folder = tmp_path / "run"
    ended = evaluate(*arguments, "--out", str(folder))
    assert ended.code == 2, ended.err
    (line,) = ended.err.strip().splitlines()
    assert all(name in line for name in names), line
    assert not folder.exists()
