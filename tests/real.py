"""Real models and data for tests marked `real`. They are not part of the project; where they are missing, the tests fail.

RAYDISTILL_SHARED names the folder that holds data/ and tools/real_models.py (by default `shared` beside the checkout), and
RAYDISTILL_REAL_MODELS the one with the models, which that tool fills if they are not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

SMOL, GEMMA = "smollm2-135m-instruct", "gemma3-270m"
_MODELS = Path(os.environ.get("RAYDISTILL_REAL_MODELS", "~/.cache/raydistill/real-models")).expanduser()


def shared(part: str) -> Path:
    """A file or folder of the shared ones."""
    path = Path(os.environ.get("RAYDISTILL_SHARED", Path(__file__).parents[2] / "shared")) / part
    assert path.exists(), f"{path} is missing; RAYDISTILL_SHARED names the folder that holds data/ and tools/"
    return path


@cache
def real_model(name: str) -> Path:
    """The folder of a real model, made first if need be, which takes minutes."""
    if not (_MODELS / name).is_dir():
        subprocess.run([sys.executable, shared("tools/real_models.py"), _MODELS], check=True, timeout=1200)
    return _MODELS / name
