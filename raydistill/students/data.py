"""What a student is trained on, as text and as its token ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raydistill.models.text import encode_completion, render_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Trace:
    """A completion that a student is trained on."""

    prompt_text: str
    completion_text: str
    ended: bool
    """Whether its author ended the turn. Another trace carries no end token: the student would learn what its author did not do."""


@dataclass(frozen=True)
class Answer:
    """A right answer of the original teacher."""

    trace: Trace
    logprob: float
    """How likely that teacher finds it, its end included if it has one, in nats."""


@dataclass(frozen=True)
class Encoded:
    """A prompt and what follows it, as token ids."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]


@dataclass(frozen=True)
class Reader:
    """How one model reads prompts and traces."""

    tokenizer: PreTrainedTokenizerBase
    template: str
    """`chat` or `plain`."""
    prompt_format: str
    end_id: int
    """The token that ends an answer."""
    system_prompt: str = ""

    def prompt(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt, up to the point where a completion begins."""
        return tuple(render_prompt(self.tokenizer, text, self.template, self.prompt_format, self.system_prompt))

    def trace(self, trace: Trace) -> Encoded:
        """A trace in this model's own tokenisation, with its end token if the trace ended."""
        end = (self.end_id,) if trace.ended else ()
        return Encoded(self.prompt(trace.prompt_text), (*encode_completion(self.tokenizer, trace.completion_text), *end))
