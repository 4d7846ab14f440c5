"""Joining a Ray cluster, or starting one on this machine for the time of a run."""

from __future__ import annotations

import logging
import os
from typing import Any

from raydistill.environment import set_driver_environment

OBJECT_STORE_BYTES = 256 * 2**20
"""For everything but weights."""


def connect(weights_bytes: int = 0) -> None:
    """Join the cluster that RAY_ADDRESS names (a submitted job has it set); otherwise start one that only this machine reaches.

    Two versions of weights of `weights_bytes` fit in the object store of the latter: the one in use and the one being sent.
    """
    set_driver_environment()
    import ray

    if ray.is_initialized():
        return
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
        return
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES + 2 * weights_bytes,
        _node_ip_address="127.0.0.1",
    )


def capacity() -> dict[str, Any]:
    """CPUs and GPUs there are for actors: of the cluster that RAY_ADDRESS names once joined, else of this machine."""
    import ray

    if ray.is_initialized():
        return ray.cluster_resources()
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(_gpus())}


def _gpus() -> int:
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    return NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
