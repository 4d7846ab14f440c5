"""A sampled completion, and how sampling is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class StopReason(StrEnum):
    END = "end"
    """The model sampled its end-of-turn token."""
    ANSWERED = "answered"
    """The model went on after its answer, see `EngineSpec.ends_before`: what it wrote then is left out; there is no end-of-turn token."""
    LENGTH = "length"
    """`max_new_tokens` was reached: the completion is truncated."""


@dataclass(frozen=True)
class Completion:
    """One completion, token-in and token-out: the ids are those that were sampled, never re-encoded from the text."""

    prompt_id: str
    sample: int
    """Index within the samples of the prompt, 0 to G - 1."""
    prompt_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    """The sampled tokens, with the end-of-turn token where one was sampled."""
    logprobs: tuple[float, ...]
    """Log-probability, in nats, of each of `token_ids` under the model that sampled it, at temperature 1."""
    text: str
    """The decoded tokens without the closing end-of-turn token. Special tokens inside are kept visible."""
    stop: StopReason
    has_special: bool
    """A special token was sampled before the end: the verifier counts such a completion as wrong."""
    weights_version: int

    @property
    def truncated(self) -> bool:
        return self.stop is StopReason.LENGTH

    @property
    def has_end(self) -> bool:
        """Whether the last token is one that ends the turn."""
        return self.stop is StopReason.END


@dataclass(frozen=True)
class Sampling:
    """How to sample. Training rollouts are always sampled at temperature 1 from the whole distribution."""

    samples: int
    """G, completions per prompt."""
    max_new_tokens: int
    greedy: bool = False
    seed: int = 0
    """Every sample draws from a stream of its own, set by (seed, prompt id, sample index): it does not depend on the batch or worker."""


def sample_seed(seed: int, prompt_id: str, sample: int) -> int:
    """A 63-bit seed for one sample's stream, the same on every machine."""
    import hashlib

    digest = hashlib.sha256(f"{seed}:{prompt_id}:{sample}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


@dataclass(frozen=True)
class TokenPrompt:
    """A prompt as the teacher's token ids."""

    id: str
    token_ids: tuple[int, ...]
