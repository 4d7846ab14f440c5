"""`raydistill diagnose` as a user calls it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import ENVIRONMENT, Ended

SMALL = ["evaluation.prompts=12", "wrong_pairs=20", "rollout.engine=transformers"]


def diagnose(*arguments: str) -> Ended:
    command = [sys.executable, "workflows/diagnose.py", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=ENVIRONMENT)
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("diagnose") / "run"
    ended = diagnose(*SMALL, "--out", str(folder))
    assert ended.code == 0, ended.err
    assert "gap" in ended.out
    return folder


def test_every_trap_and_symptom_has_a_figure_with_interval_and_n_or_says_why_not(run) -> None:
    found = json.loads((run / "diagnosis.json").read_text())
    assert list(found["traps"]) == ["tail_noise", "off_policy_instability", "gap"]
    assert list(found["symptoms"]) == ["overconfident_hallucination", "self_correction_collapse", "local_decoding_degradation"]
    for one in (found["traps"] | found["symptoms"]).values():
        assert one["ci95"][0] <= one["value"] <= one["ci95"][1]
        assert one["n"] == 12
    curve = [row["value"] for row in found["traps"]["tail_noise"]["curve"]["forward"]]
    assert curve == sorted(curve)
    gap = found["traps"]["gap"]
    assert gap["value"] > 0 < gap["on_student"]["value"]
    assert gap["wrong_trace_preference"]["wrong_traces"] == "corrupted"
    assert gap["wrong_trace_preference"]["teacher"]["paired_rate"]["value"] < 0.5
    assert found["score"]["teacher"]["value"] > 0.9 > found["score"]["student"]["value"]
    recovery = found["symptoms"]["self_correction_collapse"]
    assert recovery["teacher"]["recovery"]["value"] == 0  # it was never shown a correction
    assert recovery["teacher"]["uncorrupted"]["value"] > 0.9
    assert recovery["reference"] == recovery["student"]["uncorrupted"]["value"]
    assert found["split"] == "tune"
    assert found["verdict"]


def test_the_page_loads_nothing_and_shows_three_pictures(run) -> None:
    page = (run / "diagnosis.html").read_text()
    assert page.count("<svg ") == 3
    assert "<script" not in page
    assert "src=" not in page
    assert "Trap: tail noise" in page


def test_what_is_complete_is_not_redone_and_what_is_not_goes_on(run) -> None:
    written = (run / "diagnosis.json").read_text()
    assert diagnose(*SMALL, "--out", str(run)).code == 0
    assert (run / "diagnosis.json").read_text() == written
    (run / "diagnosis.json").unlink()
    refused = diagnose(*SMALL, "--out", str(run))
    assert (refused.code, "--resume" in refused.err) == (2, True)
    (run / "diagnosis.json").write_text(written)


@pytest.mark.slow
def test_another_tokenizer_and_vllm(tmp_path) -> None:
    folder = tmp_path / "run"
    ended = diagnose(*SMALL[:2], "--student", "demo:proxy", "--out", str(folder))
    assert ended.code == 0, ended.err
    found = json.loads((folder / "diagnosis.json").read_text())
    assert found["traps"]["tail_noise"] == {"not measured": "the tokenizers differ"}
    assert found["traps"]["gap"]["n"] == 12
    assert found["symptoms"]["overconfident_hallucination"]["value"] >= 0
    assert found["symptoms"]["self_correction_collapse"]["n"] == 12


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--teacher", "demo:techer"], ["teacher.model", "demo:teacher"]),
        (["--student", "no/such/folder/here"], ["student.model"]),
        (["evaluation.prompts=3"], ["wrong_pairs", "evaluation.teacher_samples"]),
        (["evaluation.prompts=0"], ["evaluation.prompts", "greater than or equal to 1"]),
        (["track.uri=sqlite:///mlflow.db"], ["track.uri", "MLflow"]),
        (["techer.model=x"], ["did you mean 'teacher'"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, names) -> None:
    folder = tmp_path / "run"
    ended = diagnose(*arguments, "--out", str(folder))
    assert ended.code == 2, ended.err
    (line,) = ended.err.strip().splitlines()
    assert all(name in line for name in names), line
    assert not folder.exists()
