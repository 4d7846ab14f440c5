"""`raydistill evaluate` as a user calls it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

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


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--model", "demo:techer"], ["model.model", "demo:teacher"]),
        (["--model", "no/such/folder/here"], ["model.model"]),
        (["evaluation.options={}"], ["evaluation.options", "arithmetic task has no options"]),
        (["max_new_tokens=127"], ["max_new_tokens", "the context of model.model (128)"]),
        (["modle.model=x"], ["did you mean 'model'"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, names) -> None:
    folder = tmp_path / "run"
    ended = evaluate(*arguments, "--out", str(folder))
    assert ended.code == 2, ended.err
    (line,) = ended.err.strip().splitlines()
    assert all(name in line for name in names), line
    assert not folder.exists()
