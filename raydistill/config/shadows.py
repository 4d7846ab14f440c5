"""Shadow students: distilled while the teacher is calibrated, so that the reward comes from students as they are by then."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict
from raydistill.config.models import ModelConfig


class ShadowsConfig(Strict):
    """Students distilled from the teacher's latest rollouts, each beside a twin that is fed by the original teacher."""

    use: Literal["scorer", "influence"] = "scorer"
    """The shadow's score takes the proxy's place, or the reward is how much training on a completion would help the shadow."""
    models: Annotated[tuple[ModelConfig, ...], Field(min_length=1)]
    """The shadows before distillation; of different sizes and tokenizers, if you like. Each is trained in a process of its own."""
    combine: Literal["mean", "worst"] = "mean"
    """The rewards of several shadows become one by their mean, or by the one that gives the least of what eta asks for."""
    updates: PositiveInt = 2
    """Optimiser steps of a shadow, and of its twin, in a step of the calibration."""
    batch: PositiveInt = 64
    """Completions in one of them."""
    lr: PositiveFloat = 1e-3
    """Learning rate of AdamW: constant, after a rise over the first ten optimiser steps."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens, padding included, in one forward and backward pass."""
    measure_every: PositiveInt = 10
    """Steps between two measurements of how often shadow and twin are right."""
    prompts: PositiveInt = 128
    """Prompts of the tune split on which that is measured, with one completion each at temperature 1; those held out are not among them."""
    held_out: PositiveInt = 32
    """For `influence`: prompts of the tune split to which the shadow is to give one of the original teacher's right answers."""
    eps: PositiveFloat = 1e-2
    """For `influence`: how far the shadow's weights are moved each way, as a length (L2 norm) in the space of weights."""
    budget_seconds: PositiveFloat = 30.0
    """How long a step waits for shadows that still train; then it goes on with the weights they had, and they miss its rollouts."""
    cpus: NonNegativeFloat = 0.25
    """Logical CPUs that Ray reserves for each shadow."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for each shadow."""
