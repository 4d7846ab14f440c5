"""Joining a Ray cluster, or starting one on this machine for the time of a run."""

from __future__ import annotations

import logging
import os
import socket
from typing import Any, Literal
from urllib.parse import urlsplit

from raydistill.environment import set_driver_environment
from raydistill.errors import InputError, reason

OBJECT_STORE_BYTES = 256 * 2**20
"""For everything but weights."""

Kind = Literal["rollout", "learner", "student"]
_SHARE = 0.001
"""Of a node's custom resource, so little that it places a process and does not limit how many there are: a GPU or a CPU is scarce first."""


def connect(weights_bytes: int = 0) -> None:
    """Join the cluster that RAY_ADDRESS names (a submitted job has it set); otherwise start one, behind a token.

    Weights of `weights_bytes` fit in the object store of the latter three times: a version in use, one being sent, and room to spare,
    since Ray begins to spill before it is full.
    """
    set_driver_environment()
    import ray

    if ray.is_initialized():
        return
    if address := os.environ.get("RAY_ADDRESS"):
        try:
            _knock(address)
            ray.init(log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason(error)}); start it, or unset it") from None
        return
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES + 3 * weights_bytes,
    )


def placement(kind: Kind) -> dict[str, float]:
    """Custom resources that a process of this kind asks Ray for, so that it lands on nodes that offer one called like it.

    Empty where no node does, as on a laptop. Ray must be initialised. Nodes that an autoscaler has yet to start do not count: where
    kinds are kept apart, each has a node from the beginning.
    """
    import ray

    return {kind: _SHARE} if ray.cluster_resources().get(kind) else {}


def _knock(address: str) -> None:
    """Raises OSError where nobody listens: Ray itself would try for minutes. Addresses without a port are Ray's to find."""
    parts = urlsplit(f"//{address.removeprefix('ray://')}")
    if parts.hostname and parts.port:
        socket.create_connection((parts.hostname, parts.port), timeout=10).close()


def capacity() -> dict[str, Any] | None:
    """CPUs and GPUs there are for actors: of the cluster once joined, else of this machine; None before joining one elsewhere."""
    set_driver_environment()
    import ray

    if ray.is_initialized():
        return ray.cluster_resources()
    if os.environ.get("RAY_ADDRESS"):
        return None
    return {"CPU": float(os.cpu_count() or 1), "GPU": float(_gpus())}


def _gpus() -> int:
    from ray._private.accelerators import NvidiaGPUAcceleratorManager

    return NvidiaGPUAcceleratorManager.get_current_node_num_accelerators()
