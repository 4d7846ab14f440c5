"""The process around an engine: a thin shell that the pool makes a Ray actor of."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.models.weights import Weights, WeightsError, arriving
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt
from raydistill.rollout.engine import EngineSpec, start_engine


@dataclass(frozen=True)
class Probe:
    """A text whose log-probabilities the learner knows: an engine with the same weights must agree."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """In nats, of each token after the first."""
    tolerance: float

    def deviation(self, logprobs: Sequence[float]) -> float:
        """The largest absolute difference in nats. Raises WeightsError where it is over the tolerance, or not a number."""
        differences = [abs(own - other) for own, other in zip(self.logprobs, logprobs, strict=True)]
        worst = math.nan if any(map(math.isnan, differences)) else max(differences, default=0.0)
        if not worst <= self.tolerance:
            raise WeightsError(
                f"after a sync the engine's log-probabilities differ from the learner's by up to {worst:.3g} nats; "
                f"at most {self.tolerance:g} is allowed"
            )
        return worst


class RolloutActor:
    """Hosts one engine."""

    def __init__(self, spec: EngineSpec) -> None:
        self._engine = start_engine(spec)

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int) -> list[list[Completion]]:
        return self._engine.generate(prompts, sampling, version)

    def sync(self, weights: Weights, probe_ids: Sequence[int]) -> list[float]:
        """Load new weights; the engine's log-probabilities of the probe. Raises WeightsError if they are not what was sent."""
        self._engine.load_weights(weights.version, arriving(weights))
        return self._engine.token_logprobs(probe_ids)

    def pid(self) -> int:
        return os.getpid()
