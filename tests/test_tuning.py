"""What of Ray Tune the sweep relies on and would hang without."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler


def _slow_to_stop(config: dict[str, Any]) -> None:
    """As a trial is whose tracking server is away: its end takes longer than Tune's own patience, 2 s."""
    import raydistill.trial  # noqa: F401 - as it is where a trial runs

    try:
        for steps in (1, 2):
            tune.report({"steps": steps, "student": config["student"]})
    except SystemExit:
        time.sleep(4)
        raise


@pytest.mark.timeout(120)
def test_the_process_of_a_trial_that_is_slow_to_stop_is_used_again(ray_cluster: None, tmp_path: Path) -> None:
    scheduler = AsyncHyperBandScheduler(time_attr="steps", metric="student", mode="max", grace_period=1, reduction_factor=2, max_t=3)
    found = tune.Tuner(
        tune.with_resources(_slow_to_stop, {"CPU": 0.01}),
        param_space={"student": tune.grid_search([3, 2, 1])},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True, scheduler=scheduler),
        run_config=tune.RunConfig(name="slow", storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert [one.metrics["steps"] for one in found] == [2, 1, 1]
    assert found.num_errors == 0
