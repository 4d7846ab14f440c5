"""What a learner is asked to learn from, and how it is set up. Plain data: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol


class Tokens(Protocol):
    """A completion after its prompt."""

    @property
    def prompt_ids(self) -> tuple[int, ...]: ...

    @property
    def completion_ids(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Sample:
    """One completion with its advantage; every completion token carries the same one."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    rollout_logprobs: tuple[float, ...]
    """Log-probability, in nats, of each completion token under the engine that sampled it."""
    advantage: float


@dataclass(frozen=True)
class LoraSpec:
    """Low-rank adapters: W + alpha / rank * B A, of which only A and B are trained."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | str = "all-linear"


@dataclass(frozen=True, kw_only=True)
class ZeroSpec:
    """How a model is loaded and trained in ZeRO-3 partitions. The fields are explained in `raydistill.config.calibration.LearnerConfig`."""

    model: str
    """A Hugging Face folder with the initial weights in safetensors."""
    lr: float
    optimizer: Literal["adamw", "sgd"] = "adamw"
    adam_eps: float = 1e-8
    max_grad_norm: float = 1.0
    """0 switches clipping off."""
    micro_batch_tokens: int = 8192
    dtype: str = "float32"
    seed: int = 0
    """Of the adapters' initial values; nothing else is random."""
    persistence_threshold: int = 100_000
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: for models that would not fit otherwise."""
    lora: LoraSpec | None = None


@dataclass(frozen=True, kw_only=True)
class LearnerSpec(ZeroSpec):
    """How a learner steps, beyond that."""

    kl_coef: float
    kl_estimator: Literal["k3", "exact"]
    clip_low: float = 0.2
    clip_high: float = 0.2
    importance_cap: float = 2.0
    updates_per_step: int = 1


def batch_tokens(samples: Sequence[Sample]) -> int:
    """Number of completion tokens of a batch: what each loss component is divided by."""
    return sum(len(sample.completion_ids) for sample in samples)
