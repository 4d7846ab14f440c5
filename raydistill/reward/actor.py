"""A reward model in a process of its own, as a Ray actor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from raydistill.cluster import placement
from raydistill.config.task import RewardConfig
from raydistill.environment import process_environment
from raydistill.reward.model import RewardSpec, SequenceClassifier
from raydistill.scoring.actor import answers


class RewardActor:
    """Hosts one reward model."""

    def __init__(self, spec: RewardSpec) -> None:
        import torch

        torch.set_num_threads(spec.threads)
        self._model = SequenceClassifier(spec)

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        return self._model.score(prompts, completions)


class RemoteReward:
    """The `RewardModel` that an actor hosts. It can be sent to other processes, which then share the actor."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """Raises RunError where the actor died, and what it raised otherwise."""
        (scores,) = answers([self._actor.score.remote(prompts, completions)])
        return scores

    def stop(self) -> None:
        """Kill the process."""
        import ray

        ray.kill(self._actor)


def start_reward(config: RewardConfig, folder: str) -> RemoteReward:
    """Start the reward model of a folder without waiting for it. It runs on the CPU unless GPUs are reserved for it.

    It is placed with the engines, as scorers are.
    """
    import ray

    threads = max(1, int(config.cpus))
    spec = RewardSpec(folder, config.dtype, config.batch_tokens, threads)
    options = {
        "num_cpus": config.cpus,
        "num_gpus": config.gpus,
        "resources": placement("rollout"),
        "runtime_env": {"env_vars": process_environment(threads, config.gpus)},
    }
    return RemoteReward(ray.remote(RewardActor).options(**options).remote(spec))
