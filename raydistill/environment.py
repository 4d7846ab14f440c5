"""Environment variables that must be set before Ray, vLLM, DeepSpeed and the hub's libraries are imported."""

from __future__ import annotations

import os
import secrets
import sys

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
        # glibc would raise this to 32 MiB by itself, and a learner of 0.13 B parameters then keeps 1.7 GiB of freed activations.
        "MALLOC_MMAP_THRESHOLD_": str(2**20),
        "OMP_NUM_THREADS": str(threads),
        # A thread that spins while it waits takes the processor from another actor's.
        "OMP_WAIT_POLICY": "passive",
        # torch prints a FutureWarning a step in actors
        "PYTHONWARNINGS": "ignore",
        "TOKENIZERS_PARALLELISM": "false",
        "TORCH_CPP_LOG_LEVEL": "ERROR",
    }
    if not gpus:
        environment |= {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    return environment


def set_driver_environment() -> None:
    """Telemetry off, and Ray's authentication chosen unless the user has chosen. Must run before Ray is imported.

    A cluster that this process starts listens on every network interface, whatever address it is given, and whoever reaches it
    may run code: it gets a token that only this process and its children know. Without a choice Ray would write one into the
    user's home, which later clusters would demand.
    """
    for name, value in {**TELEMETRY_OFF, "PYTHONWARNINGS": "ignore::FutureWarning"}.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_MODE" in os.environ or "ray" in sys.modules:  # chosen, or too late to choose
        return
    if os.environ.get("RAY_ADDRESS"):
        os.environ["RAY_AUTH_MODE"] = "disabled"
    else:
        os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
