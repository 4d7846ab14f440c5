"""The environment of a process that hosts an engine. It has to be there before torch and vllm are imported."""

from __future__ import annotations

import os

from raydistill.rollout.engine import EngineSpec

_QUIET = {
    "PYTHONWARNINGS": "ignore",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "TOKENIZERS_PARALLELISM": "false",
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_VLLM = {
    # In-process: one process instead of three, and weights reach the model without being serialised again.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
_VLLM_ON_CPU = {
    # The first request with log-probs would otherwise compile for 11 s.
    "TORCH_COMPILE_DISABLE": "1",
    # vLLM's own choice pins every engine of a machine to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def engine_environment(spec: EngineSpec) -> dict[str, str]:
    """Environment variables for the process of an engine: its threads, no telemetry, and what vLLM needs."""
    env = {**_QUIET, "OMP_NUM_THREADS": str(spec.threads)}
    if spec.kind == "vllm":
        env |= _VLLM | {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")}
        if not spec.gpu:
            env |= _VLLM_ON_CPU
    return env
