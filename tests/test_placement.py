"""Where processes land on a cluster whose nodes offer custom resources, and that they ask for none elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from raydistill.cluster import placement
from tests.e2e.conftest import ENVIRONMENT

ROOT = Path(__file__).parents[1]


def three_nodes() -> dict[str, Any]:
    environment = ENVIRONMENT | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "tests/three_nodes.py"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_process_lands_on_the_node_of_its_kind() -> None:
    outcome = three_nodes()
    assert outcome["landed"] == {
        "engine": "rollout",
        "scorer": "rollout",
        "learner": "learner",
        "shadow": "student",
        "student task": "student",
        "training worker": "student",
    }
    for kind, asked in outcome["asked"].items():
        assert list(asked) == [kind]
        assert 0 < asked[kind] <= 0.001, "a node of one would hold fewer than a thousand processes"


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("kind", ["rollout", "learner", "student"])
def test_nothing_is_asked_for_where_no_node_offers_it(kind: Any) -> None:
    assert placement(kind) == {}
