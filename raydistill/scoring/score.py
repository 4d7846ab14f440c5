"""Sequence scores: how likely a model finds a text, under its own tokenizer and template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from raydistill.errors import InputError, RunError
from raydistill.models.text import encode_completion, id_count, render_prompt

if TYPE_CHECKING:
    import torch

    from raydistill.scoring.forward import Array, Forward, TokenTopK

LARGEST_DISTRIBUTION = 1000
"""Largest vocabulary over which whole distributions are handed out."""
_LEARNT_TO_END = math.log(0.1)


@dataclass(frozen=True)
class ScorerSpec:
    """How to set up a scorer; plain data, so that it can be sent to an actor."""

    model: str
    """A Hugging Face folder or hub name."""
    template: Literal["auto", "chat", "plain"] = "auto"
    prompt_format: str = "{prompt}"
    system_prompt: str = ""
    dtype: str = "float32"
    batch_tokens: int = 8192
    """Tokens, padding included, that go through the model at once."""
    threads: int = 1
    """Threads of the process that an actor runs in."""


@dataclass(frozen=True)
class SequenceScore:
    """How likely a model finds a completion after a prompt."""

    logprob: float
    """Sum of the log-probabilities, in nats, of the completion's tokens. The end of the turn is not among them."""
    tokens: int
    """Length in the model's own tokens."""
    bytes: int
    """Length in UTF-8 bytes."""
    end_logprob: float
    """Log-probability, in nats, of the end-of-turn token after the completion; kept apart, since not every model learnt to end so."""

    def with_end(self) -> SequenceScore:
        """The same with the end of the turn counted as one more token."""
        return replace(self, logprob=self.logprob + self.end_logprob, tokens=self.tokens + 1)

    @property
    def per_byte(self) -> float:
        return self.logprob / max(1, self.bytes)

    @property
    def per_token(self) -> float:
        return self.logprob / max(1, self.tokens)

    @property
    def per_sequence(self) -> float:
        return self.logprob


def learnt_to_end(scores: Sequence[SequenceScore]) -> bool:
    """Whether a model ends its turns with its end-of-turn token, by its scores of right, whole completions.

    The test is a geometric mean probability of a tenth: a model that never saw the token there gives about one in V.
    """
    return bool(scores) and sum(score.end_logprob for score in scores) / len(scores) >= _LEARNT_TO_END


class Scorer:
    """Scores texts and tokens under one model. The same call with the same weights gives the same numbers, to the last bit."""

    def __init__(self, spec: ScorerSpec) -> None:
        import torch

        from raydistill.models.load import load_model, load_tokenizer
        from raydistill.models.template import check_system_prompt, end_of_turn_id, resolve_template
        from raydistill.scoring.forward import Forward

        self.spec = spec
        self._tokenizer = load_tokenizer(spec.model)
        self._template = resolve_template(self._tokenizer, spec.template)
        check_system_prompt(self._tokenizer, self._template, spec.system_prompt, spec.model)
        self._end_id = end_of_turn_id(self._tokenizer, self._template)
        self._model = load_model(spec.model, spec.dtype).to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]
        self._forward = Forward(self._model, spec.batch_tokens)
        self._whole = True

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[SequenceScore]:
        """The score of each completion after the prompt at the same place, in order; a repeated pair is computed once.

        Raises RunError for a text that does not fit the model's context or after a failed `load_weights`.
        """
        pairs = list(zip(prompts, completions, strict=True))
        distinct = list(dict.fromkeys(pairs))
        rendered = {prompt: self._render(prompt) for prompt, _ in distinct}
        encoded = [(rendered[prompt], encode_completion(self._tokenizer, text)) for prompt, text in distinct]
        logprobs = self._serving().token_logprobs([(prompt, [*ids, self._end_id]) for prompt, ids in encoded])
        scores = {pair: _sequence_score(pair[1], values) for pair, values in zip(distinct, logprobs, strict=True)}
        return [scores[pair] for pair in pairs]

    def token_logprobs(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> list[Array]:
        """Log-probability, in nats, of each token of sampled completions: (T,) float32 each, in order.

        Raises RunError for a sequence that does not fit the model's context or after a failed `load_weights`.
        """
        return self._serving().token_logprobs(list(zip(prompt_ids, completion_ids, strict=True)))

    def token_distributions(self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]]) -> list[Array]:
        """Log-probabilities, in nats, of the whole vocabulary at each token of sampled completions: (T, V) float32 each, in order.

        Raises InputError for a vocabulary larger than LARGEST_DISTRIBUTION; otherwise as `token_logprobs`.
        """
        vocabulary = self._forward.vocabulary
        if vocabulary > LARGEST_DISTRIBUTION:
            raise InputError(
                f"learner.kl_estimator: 'exact' sums over the vocabulary, and {self.spec.model} has {vocabulary} tokens; "
                f"use 'k3' above {LARGEST_DISTRIBUTION}"
            )
        return self._serving().token_distributions(list(zip(prompt_ids, completion_ids, strict=True)))

    def token_topk(
        self, prompt_ids: Sequence[Sequence[int]], completion_ids: Sequence[Sequence[int]], k: int, temperature: float = 1.0
    ) -> list[TokenTopK]:
        """The model's `k` likeliest tokens, of those that its tokenizer has, at each token of sampled completions, in order.

        Raises InputError if there are fewer than `k`; ValueError if k or the temperature is not positive; otherwise as `token_logprobs`.
        """
        if k > self._ids:
            raise InputError(f"k: {k}, but the vocabulary of {self.spec.model} has {self._ids} tokens; use at most that many")
        return self._serving().token_topk(list(zip(prompt_ids, completion_ids, strict=True)), k, temperature, self._ids)

    def load_weights(self, named_tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights, named as in the Hugging Face checkpoint. If it fails, the scorer refuses to serve until a load succeeds.

        Raises WeightsError for a tensor that does not belong or is missing.
        """
        from raydistill.models.manifest import Manifest

        self._whole = False
        own = self._model.state_dict()
        for name, tensor in Manifest(self._model).checked(named_tensors):
            own[name].copy_(tensor)
        self._whole = True

    @cached_property
    def _ids(self) -> int:
        return min(id_count(self._tokenizer), self._forward.vocabulary)

    def _serving(self) -> Forward:
        if not self._whole:
            raise RunError(f"the scorer of {self.spec.model} holds half of a weights version and does not serve; sync it again")
        return self._forward

    def _render(self, prompt: str) -> list[int]:
        ids = render_prompt(self._tokenizer, prompt, self._template, self.spec.prompt_format, self.spec.system_prompt)
        if not ids:
            raise RunError(f"a prompt becomes no token at all under {self.spec.model}: {prompt!r}; its first token could not be scored")
        return ids


def _sequence_score(text: str, logprobs_T: Array) -> SequenceScore:
    """`logprobs_T` has the text's tokens and, last, the end of the turn. Summed in double precision."""
    return SequenceScore(
        logprob=float(logprobs_T[:-1].sum(dtype="float64")),
        tokens=len(logprobs_T) - 1,
        bytes=len(text.encode()),
        end_logprob=float(logprobs_T[-1]),
    )
