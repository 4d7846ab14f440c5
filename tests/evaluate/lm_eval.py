"""lm-evaluation-harness as a user runs it: a process of its own, on a task file and local data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

PYTHON = os.environ.get("RAYDISTILL_LM_EVAL", sys.executable)
"""An interpreter that can import lm_eval."""
TASKS = Path(__file__).with_name("lm_eval_tasks")


def missing() -> str:
    """Why it cannot be run, or an empty string."""
    found = subprocess.run([PYTHON, "-c", "import lm_eval"], capture_output=True, text=True, check=False)
    return (
        "" if found.returncode == 0 else f"{PYTHON} cannot import lm_eval; pip install lm-eval, or name one that can by RAYDISTILL_LM_EVAL"
    )


def samples(task: str, model: Path, data: Path, folder: Path, *options: str) -> list[dict[str, Any]]:
    """What it logs of each document (several lines where there are several filters), in the order of the documents."""
    text = (TASKS / f"{task}.yaml").read_text().replace("DATA", json.dumps(str(data)))
    (folder / "tasks").mkdir(parents=True)
    (folder / "tasks" / f"{task}.yaml").write_text(text)
    command = [PYTHON, "-m", "lm_eval", "run", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32", "--device", "cpu"]
    command += ["--tasks", f"raydistill_{task}", "--include_path", str(folder / "tasks"), "--output_path", str(folder / "out")]
    command += ["--log_samples", "--batch_size", "8", *options]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
    subprocess.run(command, check=True, capture_output=True, timeout=1500, env=os.environ | offline, cwd=folder)
    (log,) = (folder / "out").rglob("samples_*.jsonl")
    return sorted(map(json.loads, log.read_text().splitlines()), key=lambda row: row["doc_id"])
