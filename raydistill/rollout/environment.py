"""The environment of a process that hosts an engine. It has to be there before torch and vllm are imported."""

from __future__ import annotations

import os

from raydistill.environment import process_environment
from raydistill.rollout.engine import EngineSpec

_VLLM = {
    # In-process: one process instead of three, and weights reach the model without being serialised again.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
}
_VLLM_ON_CPU = {
    # The first request with log-probs would otherwise compile for 11 s.
    "TORCH_COMPILE_DISABLE": "1",
    # vLLM's own choice pins every engine of a machine to the same cores.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}


def engine_environment(spec: EngineSpec) -> dict[str, str]:
    """Environment variables for the process of an engine: those of every process, and what vLLM needs."""
    env = process_environment(spec.threads, gpus=float(spec.gpu))
    if spec.kind == "vllm":
        env |= _VLLM | {"VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR")}
        if not spec.gpu:
            env |= _VLLM_ON_CPU
    return env
