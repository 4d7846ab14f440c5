"""A complete diagnosis of real pairs on 64 GSM8K questions: time, memory, and what is measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.e2e.memory import watched
from tests.e2e.noisy import noisy
from tests.real import GEMMA, SMOL, real_model, shared

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(2400)]

MINUTES, GIB = 20, 6


def _diagnosed(tmp_path: Path, teacher: Path, *more: str) -> dict:
    """The diagnosis of SmolLM2 beside `teacher`."""
    out = tmp_path / "run"
    models = [f"teacher.model={teacher}", f"student.model={real_model(SMOL)}", f"task.data.train={shared('data/gsm8k/train.jsonl')}"]
    command = [
        sys.executable,
        "workflows/diagnose.py",
        "--config",
        "configs/diagnose-real.yaml",
        *models,
        *more,
        "track.uri=null",
        "--out",
        str(out),
    ]
    took = watched(command, tmp_path / "stderr.log")
    found = json.loads((out / "diagnosis.json").read_text())
    print(f"{teacher.name}: {took}; {found['seconds']}")
    print(json.dumps({kind: found[kind] for kind in ("score", "traps", "symptoms")})[:6000])
    assert took.seconds < MINUTES * 60
    assert took.peak < GIB * 2**30
    for one in (found["traps"] | found["symptoms"]).values():
        assert "not measured" in one or one["n"] <= 64
    assert found["traps"]["gap"]["value"] > 0
    assert found["verdict"]
    return found


def test_across_tokenizers(tmp_path: Path) -> None:
    found = _diagnosed(tmp_path, real_model(GEMMA))
    assert found["traps"]["tail_noise"] == {"not measured": "the tokenizers differ"}


def test_with_itself_and_noise(tmp_path: Path) -> None:
    teacher = noisy(real_model(SMOL), tmp_path / "noisy", share=0.05)
    found = _diagnosed(tmp_path, teacher, "teacher.prompt_format='{prompt}'")
    assert found["traps"]["tail_noise"]["value"] >= 0
    assert found["traps"]["off_policy_instability"]["value"] > 0


def test_after_few_shot_prompts(tmp_path: Path) -> None:
    """A model that was only pretrained goes on with examples of its own; what is diagnosed ends before."""
    fewer = ["evaluation.prompts=8", "max_new_tokens=128", "rollout.max_model_len=1024", "wrong_pairs=4"]
    _diagnosed(tmp_path, real_model(GEMMA), "task.few_shot=3", "task.gold=answer", "teacher.prompt_format='{prompt}'", *fewer)
    wrote = json.loads((tmp_path / "run" / "completions" / "teacher.json").read_text())["completions"]
    stops = [one["stop"] for row in wrote for one in row]
    assert stops.count("answered") >= 2  # others reach the limit before their answer is over
    assert not any("\n\nQuestion:" in one["text"] for row in wrote for one in row)
