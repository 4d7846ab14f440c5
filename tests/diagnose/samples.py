"""Completions as the demo's teacher might have written them."""

from __future__ import annotations

from collections.abc import Sequence

from raydistill.diagnose.sampled import Sampled
from raydistill.rollout.completion import Completion, StopReason
from raydistill.tasks.prompt import Prompt


def completion(
    text: str, token_ids: Sequence[int], logprobs: Sequence[float], truncated: bool = False, special: bool = False
) -> Completion:
    stop = StopReason.LENGTH if truncated else StopReason.END
    return Completion("p", 0, (1,), tuple(token_ids), tuple(logprobs), text, stop, special, 0)


def sampled(rows: Sequence[Sequence[tuple[str, bool]]]) -> Sampled:
    """From (text, right) of each prompt."""
    prompts = tuple(Prompt(str(place), f"prompt {place}", "", "") for place in range(len(rows)))
    texts = tuple(tuple(completion(text, [2], [-0.1]) for text, _ in row) for row in rows)
    return Sampled(prompts, texts, tuple(tuple(right for _, right in row) for row in rows))
