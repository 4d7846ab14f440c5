"""Calibration by shadow students from the command line, without a proxy: as scorers, and by influence with two tokenizers."""

import json
import shutil

from tests.e2e.conftest import TINY, metrics, report

SHADOWS = ["--config", "configs/shadows.yaml", *TINY, "shadows.measure_every=2", "shadows.prompts=16", "shadows.held_out=16"]
INFLUENCE = [
    *SHADOWS,
    "calibration.checkpoint_every=3",
    "knob.eta=-1",
    "students=null",
    "shadows.use=influence",
    "shadows.models=[{model: demo:student}, {model: demo:proxy}]",
    "shadows.combine=worst",
]


def test_a_live_shadow_scores_in_the_place_of_a_proxy(run, tmp_path):
    out = tmp_path / "scorer"
    ended = run(*SHADOWS, "students.methods=[{method: seqkd, samples: 64, steps: 6}]", "--out", str(out))
    assert ended.code == 0, ended.err
    rows = metrics(out)
    assert all(row["cal_reward"] is not None and row["end_gap"] is not None for row in rows)
    assert [row["shadows"]["late"] for row in rows] == [0, 0, 0, 0]
    measured = [row["shadows"]["accuracy"] for row in rows]
    assert [len(values) if values else 0 for values in measured] == [1, 0, 1, 0]
    assert rows[0]["shadows"]["accuracy"] == rows[0]["shadows"]["twin"]
    seconds = json.loads((out / "metrics.jsonl").read_text().splitlines()[1])["seconds"]
    assert set(seconds) == {"rollout", "verify", "shadow", "shadow_training", "score", "learn", "sync"}
    assert seconds["shadow_training"] > 0
    data = report(out)
    assert data["teacher"]["cal_reward"] == {"original": None, "calibrated": None}
    assert [student["method"] for student in data["students"]] == ["seqkd"]
    assert "Shadow students" in (out / "report.html").read_text()


def test_influence_on_shadows_of_two_tokenizers_and_a_resumed_run_ends_in_the_same_figures(run, tmp_path):
    """What a crash after the third of four steps leaves: a checkpoint, and lines that will be made again."""
    folder = tmp_path / "influence"
    ended = run(*INFLUENCE, "--out", str(folder))
    assert ended.code == 0, ended.err
    rows, figures = metrics(folder), report(folder)
    assert all(row["cal_reward"] is not None and row["end_gap"] is None for row in rows)
    assert [len(row["shadows"]["accuracy"] or ()) for row in rows] == [2, 0, 2, 0]
    for name in ("report.json", "report.html", "measurement.json", "traces-1.json"):
        (folder / name).unlink()
    shutil.rmtree(folder / "teacher")
    ended = run(*INFLUENCE, "--resume", "--out", str(folder))
    assert ended.code == 0, ended.err
    assert metrics(folder) == rows
    assert report(folder) == figures
