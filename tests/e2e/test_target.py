"""A closed loop from the command line: what it writes, that a target out of reach is said, and that a resumed run ends alike."""

import json
import shutil

from tests.e2e.conftest import TINY, metrics, report

SMALL = [
    *TINY,
    "students.methods=[{method: seqkd, samples: 64, steps: 6}]",
    "calibration.checkpoint_every=3",
]
LOOKS = "measure_every: 2, students: 1, prompts: 64"
WARNING = "warning: seed 1: asked for students at"


def test_a_target_out_of_reach_keeps_the_best_teacher_and_a_resumed_run_is_the_same(run, tmp_path):
    """Four steps on students that have learnt next to nothing move no ratio to 0.01."""
    out = tmp_path / "far"
    far = ["--config", "configs/target.yaml", *SMALL, f"knob.target={{student_ratio: 0.01, {LOOKS}}}", "--out", str(out)]
    ended = run(*far)
    assert ended.code == 0, ended.err
    assert WARNING in ended.err
    assert "and no nearer: the steps were over; kept that teacher" in ended.err
    rows, figures = metrics(out), report(out)
    assert [row["eta"] for row in rows] == [-1.0] * 4
    assert [row["target"] is not None for row in rows] == [False, True, False, True]
    best = min((row for row in rows if row["target"]), key=lambda row: row["target"]["ratio"])
    look = best["target"]
    assert look["ratio"] == look["shadow"] / look["twin"]
    assert "target" in json.loads((out / "metrics.jsonl").read_text().splitlines()[1])["seconds"]
    assert figures["target"] == {
        "asked": 0.01,
        "reached": look["ratio"],
        "eta": -1.0,
        "steps": best["step"] + 1,
        "met": False,
        "per_seed": [
            {"seed": 1, "reached": look["ratio"], "eta": -1.0, "steps": best["step"] + 1, "met": False, "ended": "the steps were over"}
        ],
    }
    assert "Towards the target" in (out / "report.html").read_text()
    assert not (out / "redistilled").exists()
    # what a crash after the last of the four steps leaves: a checkpoint of the third, and of the second, which was measured
    for name in ("report.json", "report.html", "measurement.json", "traces-1.json"):
        (out / name).unlink()
    shutil.rmtree(out / "teacher")
    ended = run(*far, "--resume")
    assert ended.code == 0, ended.err
    assert metrics(out) == rows
    assert report(out) == figures


def test_what_was_asked_for_ends_a_calibration_by_shadows(run, tmp_path):
    out = tmp_path / "near"
    asked = f"knob.target={{student_ratio: 1, tolerance: 0.9, {LOOKS}}}"
    ended = run("--config", "configs/shadows.yaml", *SMALL, "shadows.prompts=16", "knob.eta=0", asked, "--out", str(out))
    assert ended.code == 0, ended.err
    assert WARNING not in ended.err
    assert "asked for students at 1 of the control, measured" in ended.err
    assert [row["eta"] for row in metrics(out)] == [0, 0]
    assert [row["shadows"]["late"] for row in metrics(out)] == [0, 0]
    assert (report(out)["target"]["met"], report(out)["target"]["steps"]) == (True, 2)
