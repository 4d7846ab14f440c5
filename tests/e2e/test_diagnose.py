"""`raydistill diagnose` as a user calls it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.conftest import workflow

SMALL = ["evaluation.prompts=12", "wrong_pairs=20", "track.uri=null", "rollout.engine=transformers"]

diagnose = partial(workflow, "diagnose")


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
    noise = found["traps"]["tail_noise"]
    by_class = noise["by_frequency"]["10"]
    assert sum(one["value"] for one in by_class.values()) == pytest.approx(noise["share_beyond"]["forward"]["10"]["value"], abs=1e-9)
    assert 1 <= len(noise["heaviest"]["10"]) <= 20
    assert sum(one["share"] for one in noise["heaviest"]["10"]) <= 1 + 1e-9
    (loss,) = noise["losses"]
    assert loss["tail_bucket"]["value"] <= loss["whole"]["value"] + 1e-9
    gradient = found["traps"]["off_policy_instability"]["gradient_norm"]
    assert gradient["n"] == len(gradient["teacher_prefixes"]["norms"]) == 3
    consistency = found["symptoms"]["overconfident_hallucination"]["self_consistency"]
    assert consistency["samples"] == 2
    assert consistency["teacher"]["majority_right"]["value"] > consistency["student"]["majority_right"]["value"]
    recovery = found["symptoms"]["self_correction_collapse"]
    assert recovery["teacher"]["recovery"]["value"] == 0  # it was never shown a correction
    assert recovery["teacher"]["uncorrupted"]["value"] > 0.9
    assert recovery["reference"] == recovery["student"]["uncorrupted"]["value"]
    assert found["split"] == "tune"
    assert found["verdict"]


def test_a_run_s_own_diagnosis_in_one_process_finds_the_same(run, tmp_path) -> None:
    from raydistill.config.diagnose import Diagnose
    from raydistill.config.load import load_job
    from raydistill.pair_job import PairJob
    from raydistill.tasks.arithmetic import Arithmetic

    job = load_job(Diagnose, run / "config.yaml", [])
    task = Arithmetic()
    wrote = (tmp_path / "teacher.json", tmp_path / "student.json")
    found = PairJob(tmp_path / "pair.json", "a pair", job, task, tuple(task.prompts("tune")[:12]), wrote).run()
    assert (tmp_path / "teacher.json").read_text() == (run / "completions" / "teacher.json").read_text()
    there = json.loads((run / "diagnosis.json").read_text())
    for kind in ("score", "traps", "symptoms"):
        assert flat(found[kind]) == pytest.approx(flat(there[kind]), rel=1e-5, abs=1e-9), kind


def flat(tree, prefix: str = "") -> dict[str, float]:
    """Every number of nested dicts and lists, by its place."""
    if isinstance(tree, dict | list):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {name: value for key, one in items for name, value in flat(one, f"{prefix}/{key}").items()}
    return {prefix: tree} if isinstance(tree, int | float) else {}


def test_the_page_loads_nothing_and_shows_nine_pictures(run) -> None:
    page = (run / "diagnosis.html").read_text()
    assert page.count("<svg ") == 9
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


def test_a_student_after_distillation_in_mlflow_and_resumed(tmp_path) -> None:
    folder, uri = tmp_path / "run", f"sqlite:///{tmp_path / 'mlflow.db'}"
    arguments = [*SMALL[:2], SMALL[3], f"track.uri={uri}", "--after", "demo:teacher", "--out", str(folder)]
    ended = diagnose(*arguments)
    assert ended.code == 0, ended.err
    found = json.loads((folder / "diagnosis.json").read_text())
    after = found["after"]
    assert list(after["traps"]) == list(found["traps"])
    assert list(after["symptoms"]) == list(found["symptoms"])
    assert after["differences"]["score"]["value"] == pytest.approx(after["score"]["value"] - found["score"]["student"]["value"])
    assert after["differences"]["score"]["ci95"][0] > 0
    assert abs(after["traps"]["gap"]["value"]) < 1e-6  # it is the teacher
    assert "After distillation: demo:teacher" in (folder / "diagnosis.html").read_text()

    from mlflow.tracking import MlflowClient

    run = MlflowClient(tracking_uri=uri).get_run((folder / "mlflow-run-id").read_text())
    assert run.info.status == "FINISHED"
    assert run.data.metrics["traps/gap/value"] == pytest.approx(found["traps"]["gap"]["value"])
    assert (folder / "mlflow-complete.json").exists()

    (folder / "diagnosis.json").unlink()
    assert diagnose(*arguments, "--resume").code == 0
    again = json.loads((folder / "diagnosis.json").read_text())
    assert again["seconds"]["sample"] == found["seconds"]["sample"]  # nothing was sampled again, and what that took is kept
    assert again["seconds"]["score"] > found["seconds"]["score"]
    assert again["traps"]["gap"] == found["traps"]["gap"]


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def test_another_tokenizer(tmp_path, engine) -> None:
    folder = tmp_path / "run"
    ended = diagnose(*SMALL[:3], f"rollout.engine={engine}", "--student", "demo:proxy", "--out", str(folder))
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
        (["evaluation.prompts=0"], ["evaluation.prompts", "greater than or equal to 1"]),
        (["--after", "demo:pupil", "track.uri=null"], ["after.model", "demo:student"]),
        (["gradient_probe.batches=2"], ["gradient_probe.batches", "greater than or equal to 3"]),
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
