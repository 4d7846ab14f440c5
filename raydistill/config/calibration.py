"""The loop: how much is sampled, by whom, and how the teacher learns from it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from raydistill.config.base import NonNegativeFloat, PositiveFloat, PositiveInt, Strict
from raydistill.config.models import LoraConfig

Dtype = Literal["float32", "bfloat16"]


class CalibrationConfig(Strict):
    """Steps of the loop and their size."""

    steps: PositiveInt = 40
    """Steps at most; a calibration also stops when its KL budget is spent. eta = 0 takes them all."""
    prompts: PositiveInt = 16
    """Prompts a step."""
    samples: Annotated[int, Field(ge=2)] = 8
    """Completions of each prompt, at least 2: advantages compare the samples of a prompt."""
    max_new_tokens: PositiveInt = 32
    """Tokens at which a completion is cut off; a truncated one gets no calibration reward."""
    checkpoint_every: PositiveInt = 10
    """Steps between two checkpoints."""


class RolloutConfig(Strict):
    """Engines that sample from the teacher. Training rollouts follow the model's own distribution."""

    engine: Literal["vllm", "transformers"] = "vllm"
    """Inference engine."""
    workers: PositiveInt = 1
    """Engines, each in its own process."""
    temperature: float = 1.0
    """Must be 1: the policy gradient is that of the distribution that was sampled."""
    top_p: float = 1.0
    """Must be 1, likewise."""
    top_k: int = 0
    """Must be 0 (off), likewise."""
    kv_cache_mib: PositiveInt = 256
    """Memory for the key-value cache of each engine, in MiB."""
    max_model_len: PositiveInt = 128
    """Longest prompt and completion together, in tokens."""
    cpus: NonNegativeFloat = 0.25
    """Logical CPUs that Ray reserves for each engine."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for each engine."""

    def require_room(self, field: str, new_tokens: int) -> None:
        """Raises ValueError, naming the field that says how many tokens are new, where those alone are all that an engine holds."""
        if new_tokens >= self.max_model_len:
            raise ValueError(
                f"{field} ({new_tokens}) must be below rollout.max_model_len ({self.max_model_len}), which also holds the prompt"
            )

    @model_validator(mode="after")
    def _samples_the_policy_itself(self) -> RolloutConfig:
        if (self.temperature, self.top_p, self.top_k) != (1.0, 1.0, 0):
            raise ValueError(
                "training rollouts need temperature 1, top_p 1 and top_k 0: the policy gradient is that of the whole distribution"
            )
        return self


class ScorerConfig(Strict):
    """Frozen models that score completions: the proxy and the anchor, an actor each."""

    batch_tokens: PositiveInt = 16384
    """Tokens, padding included, that go through a model at once."""
    cpus: NonNegativeFloat = 0.1
    """Logical CPUs that Ray reserves for each scorer."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for each scorer."""


class ZeroConfig(Strict):
    """A model that DeepSpeed trains in ZeRO-3 partitions."""

    adam_eps: PositiveFloat = 1e-8
    """Epsilon of AdamW. At the root mean square of the gradient or above, it keeps noise from moving parameters as far as signal."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients of a larger global norm are scaled down to it."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens, padding included, in one forward and backward pass of a process."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more work."""
    processes: PositiveInt = 1
    """ZeRO-3 processes that share the parameters."""
    persistence_threshold: Annotated[int, Field(ge=0)] = 100_000
    """Parameters smaller than this stay whole on every process (DeepSpeed's stage3_param_persistence_threshold)."""
    dtype: Dtype = "float32"
    """Type of the weights here, in the engines and in the scorers. CPUs without AVX-512 are far slower in bfloat16."""
    bucket_mib: PositiveInt = 256
    """Weights leave in pieces of at most this size."""
    lora: LoraConfig | None = None
    """Train low-rank adapters instead of all weights."""
    cpus: NonNegativeFloat = 0.25
    """Logical CPUs that Ray reserves for each process."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that Ray reserves for each process."""


class Change(Strict):
    """Other settings of the learner from some step on. What is missing stays as it was."""

    after: PositiveInt
    """Steps that are done by then."""
    lr: PositiveFloat | None = None
    """As `learner.lr`."""
    kl_coef: NonNegativeFloat | None = None
    """As `learner.kl_coef`."""


class LearnerConfig(ZeroConfig):
    """The policy gradient and the optimiser."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimiser."""
    lr: PositiveFloat = 5e-4
    """Learning rate, constant but for the schedule."""
    kl_coef: NonNegativeFloat = 0.1
    """Weight of the KL anchor (beta)."""
    schedule: tuple[Change, ...] = ()
    """Changes of the two above on the way, in ascending order; none if empty."""
    kl_estimator: Literal["auto", "k3", "exact"] = "auto"
    """KL(teacher || original): per sampled token, or over the whole vocabulary; `auto` is exact up to 1,000 tokens of vocabulary."""
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """A probability ratio below 1 - this stops being lowered."""
    clip_high: PositiveFloat = 0.2
    """A probability ratio above 1 + this stops being raised."""
    importance_cap: PositiveFloat = 2.0
    """Cap of the weight that corrects for the difference between the engine's and the learner's probability of a token."""
    updates_per_step: PositiveInt = 1
    """Optimiser steps on one step's rollouts."""

    @field_validator("schedule")
    @classmethod
    def _ascends(cls, value: tuple[Change, ...]) -> tuple[Change, ...]:
        for one, other in pairwise(value):
            if other.after <= one.after:
                raise ValueError(f"after {other.after} comes after {one.after}; give changes in ascending order")
        return value

    def settings(self, steps: int) -> tuple[float, float]:
        """lr and kl_coef once so many steps are done."""
        lr, kl_coef = self.lr, self.kl_coef
        for change in self.schedule:
            if change.after <= steps:
                lr = lr if change.lr is None else change.lr
                kl_coef = kl_coef if change.kl_coef is None else change.kl_coef
        return lr, kl_coef
