"""Joining a Ray cluster, or starting one on this machine for the time of a run."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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
        _join(address)
        return
    ray.init(
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.WARNING,
        object_store_memory=OBJECT_STORE_BYTES + 3 * weights_bytes,
    )


def _join(address: str) -> None:
    import ray
    from ray.exceptions import AuthenticationError, RayError

    try:
        _knock(address)
        _show_token(address)
        ray.init(log_to_driver=False, logging_level=logging.WARNING)
    except AuthenticationError:
        raise InputError(
            f"RAY_ADDRESS={address}: the Ray cluster there asks for a token, and this process has none or another; set RAY_AUTH_MODE=token "
            "and RAY_AUTH_TOKEN_PATH to the file that holds the cluster's"
        ) from None
    except (OSError, RuntimeError, ValueError, RayError) as error:
        raise InputError(f"RAY_ADDRESS={address}: no Ray cluster answers there ({reason(error)}); start it, or unset it") from None


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


def _show_token(address: str) -> None:
    """Raises AuthenticationError where the token is not the cluster's, RpcError where what listens is no cluster.

    Ray itself would try for 20 seconds, or five minutes, and then not say which of them it was.
    """
    from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
    from ray._raylet import GcsClient  # type: ignore[attr-defined]  # a compiled module

    ensure_token_if_auth_enabled(create_token_if_missing=False)  # without one the client would end this process
    if urlsplit(f"//{address}").port:  # and neither for Ray to find, nor with the scheme of its client, which speaks another protocol
        with _without_native_stderr():
            GcsClient(address=address)


@contextmanager
def _without_native_stderr() -> Iterator[None]:
    """For what Ray's C++ writes about an error that it also raises."""
    sys.stderr.flush()
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


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
