"""What the rest of the project knows of an inference engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from raydistill.errors import InputError
from raydistill.rollout.completion import Completion, Sampling, TokenPrompt

if TYPE_CHECKING:
    import torch

UNKNOWN_VERSION = -1
"""What an engine holds while it loads weights, and after a load that failed."""


class StaleWeightsError(RuntimeError):
    """An engine was asked to serve a weights version that it does not hold."""


@dataclass(frozen=True)
class EngineSpec:
    """How to start an engine; plain data, so that it can be sent to an actor."""

    kind: Literal["vllm", "transformers"]
    model: str
    """A Hugging Face folder with the initial weights, which are version 0."""
    max_model_len: int
    kv_cache_bytes: int = 2**28
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int = 1
    ends_before: str = ""
    """A text that a model only writes when its answer is over: a completion ends before the first. Empty for none."""
    gpu: bool = False
    """Whether the engine runs on a GPU. A pool sets it from the GPUs that it reserves."""


class Engine(Protocol):
    """Samples completions from one model whose weights can be replaced while it lives."""

    weights_version: int
    """0 at first; UNKNOWN_VERSION during and after a load that failed."""

    def generate(self, prompts: Sequence[TokenPrompt], sampling: Sampling, version: int) -> list[list[Completion]]:
        """`sampling.samples` completions of each prompt, in order.

        Raises StaleWeightsError unless the engine holds `version`, InputError for a prompt that leaves too little room.
        """
        ...

    def load_weights(self, version: int, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights, named as in the Hugging Face checkpoint. Every cached prefix is dropped.

        If it fails, the engine holds no version and refuses to serve until a load succeeds.
        """
        ...

    def token_logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Log-probability, in nats, of each token after the first given those before it (len(token_ids) - 1 values).

        Raises StaleWeightsError while the engine holds no version.
        """
        ...


def start_engine(spec: EngineSpec) -> Engine:
    """The engine of this kind, with its model loaded. It takes over the process: threads, environment and logging are set for it."""
    if spec.kind == "vllm":
        from raydistill.rollout.vllm_engine import VllmEngine

        return VllmEngine(spec)
    from raydistill.rollout.transformers_engine import TransformersEngine

    return TransformersEngine(spec)


def require_version(held: int, wanted: int | None = None) -> None:
    """Raises StaleWeightsError unless the engine holds what was asked for; without `wanted`, unless it holds any version at all."""
    if held == UNKNOWN_VERSION:
        raise StaleWeightsError("the engine holds no weights, because the last load did not finish: load weights first")
    if wanted not in (None, held):
        raise StaleWeightsError(f"weights {wanted} were asked for, but the engine holds {held}")


def require_room(prompts: Sequence[TokenPrompt], sampling: Sampling, max_model_len: int) -> None:
    """Raises InputError where a completion could be cut off by the model's length before `max_new_tokens`."""
    for prompt in prompts:
        needed = len(prompt.token_ids) + sampling.max_new_tokens
        if needed > max_model_len:
            raise InputError(
                f"prompt {prompt.id!r} has {len(prompt.token_ids)} tokens and may get {sampling.max_new_tokens} more, over "
                f"rollout.max_model_len = {max_model_len}: use a value of at least {needed}, or fewer max_new_tokens"
            )
