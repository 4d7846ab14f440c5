"""Environment variables that must be set before Ray, vLLM, DeepSpeed and the hub's libraries are imported."""

from __future__ import annotations

import os

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}


def process_environment(threads: int, gpus: float) -> dict[str, str]:
    """For the process of a Ray actor or task: quiet, `threads` for its maths, and GPUs hidden where it has none."""
    environment = {
        **TELEMETRY_OFF,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": str(threads),
        # torch prints a FutureWarning a step in actors
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if not gpus:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return environment


def set_driver_environment() -> None:
    """Telemetry off, and Ray's authentication chosen explicitly unless the user has chosen.

    Ray otherwise turns token authentication on by itself and leaves a token file that later clusters demand.
    """
    for name, value in {**TELEMETRY_OFF, "RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore::FutureWarning"}.items():
        os.environ.setdefault(name, value)
