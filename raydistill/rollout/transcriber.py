"""From sampled token ids to completions, the same way for every engine."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from raydistill.errors import InputError
from raydistill.models.stops import stop_ids
from raydistill.rollout.completion import Completion, Sampling, StopReason, TokenPrompt


@dataclass(frozen=True)
class Sampled:
    """What an engine sampled for one completion, with the end-of-turn token where there is one."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class Transcriber:
    """Knows which tokens of a model end a turn, which are special, and how its text reads.

    A completion ends before the text `ends_before`, too, by its fewest tokens with all that comes earlier: where a token reaches
    into that text, as `.\\n\\n` into one that begins with a blank line, the completion does as well. It then has no end-of-turn token.
    """

    def __init__(self, model: str, ends_before: str = "") -> None:
        from raydistill.models.load import load_tokenizer

        self._tokenizer = load_tokenizer(model)
        self._eos: int | None = self._tokenizer.eos_token_id
        self.stop_ids = frozenset(stop_ids(model, self._eos))
        if not self.stop_ids:
            raise InputError(f"{model}: neither the config nor the tokenizer names an end-of-sequence token")
        added = self._tokenizer.added_tokens_decoder
        self._special_ids = {*self._tokenizer.all_special_ids, *(id_ for id_, token in added.items() if token.special)}
        self._ends_before = ends_before
        self._last_id = max(self._tokenizer.get_vocab().values())

    def completions(
        self, prompts: Sequence[TokenPrompt], sampling: Sampling, sampled: Sequence[Sampled], version: int
    ) -> list[list[Completion]]:
        """Completions of each prompt, from what was sampled for prompt 0 sample 0, prompt 0 sample 1, and so on."""
        bodies = [self._body(one.token_ids, sampling.max_new_tokens) for one in sampled]
        texts = iter(zip(sampled, bodies, self._texts(bodies), strict=True))
        return [[self._completion(prompt, index, version, *next(texts)) for index in range(sampling.samples)] for prompt in prompts]

    def _body(self, token_ids: tuple[int, ...], max_new_tokens: int) -> tuple[int, ...]:
        """The tokens before the one that ends the turn. Nothing is recognised by the pad token: it can be sampled like any other."""
        if token_ids[-1] in self.stop_ids:
            return token_ids[:-1]
        if len(token_ids) != max_new_tokens:
            raise RuntimeError(f"the engine stopped after {len(token_ids)} of {max_new_tokens} tokens without an end-of-turn token")
        return token_ids

    def _completion(self, prompt: TokenPrompt, index: int, version: int, sampled: Sampled, body: tuple[int, ...], text: str) -> Completion:
        stop = StopReason.END if len(body) < len(sampled.token_ids) else StopReason.LENGTH
        if self._ends_before and self._ends_before in text:
            stop, body = StopReason.ANSWERED, self._up_to(body, text.partition(self._ends_before)[0])
            (text,) = self._texts([body])
            sampled = Sampled(body, sampled.logprobs[: len(body)])
        return Completion(
            prompt_id=prompt.id,
            sample=index,
            prompt_ids=prompt.token_ids,
            token_ids=sampled.token_ids,
            logprobs=sampled.logprobs,
            text=text,
            stop=stop,
            has_special=any(id_ in self._special_ids or id_ > self._last_id for id_ in body),
            weights_version=version,
        )

    def _up_to(self, body: tuple[int, ...], text: str) -> tuple[int, ...]:
        """The fewest tokens, at least one, that begin with this text. A part of a character reads as another one: lengths would not do."""
        counts = range(1, len(body) + 1)
        return body[: counts[bisect_left(counts, True, key=lambda count: self._texts([body[:count]])[0].startswith(text))]]

    def _texts(self, bodies: Sequence[tuple[int, ...]]) -> list[str]:
        """Decoded with special tokens visible and spaces as they are.

        Some tokenizers drop the space before the first word of a text. A completion continues one, so it is decoded behind
        a token whose text is then taken off.
        """
        before = [] if self._eos is None else [self._eos]
        prefix, *texts = self._tokenizer.batch_decode(
            [before, *([*before, *body] for body in bodies)], skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return [text.removeprefix(prefix) for text in texts]
