"""What tests of several parts share: one local Ray cluster for the whole session."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

# Ray reads these when it is first imported. Without the first, ray.init() switches token authentication on for this user.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

# Timings vary on a shared machine, and a test must give the same verdict each time.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A cluster of its own, with more logical CPUs than there are cores: tests reserve fractions of them."""
    import ray

    ray.init(
        address="local",
        num_cpus=8,
        object_store_memory=256 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": {"RAY_AUTH_MODE": "disabled", "PYTHONWARNINGS": "ignore"}},
    )
    yield
    ray.shutdown()
