"""The door to reward models: how good a completion is, by a model that was trained to say so.

N counts completions in a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from raydistill.errors import InputError
from raydistill.models.load import load_tokenizer
from raydistill.models.reward_model import SECTION, around, rendered
from raydistill.models.text import encode_completion
from raydistill.scoring.batches import longest_first


class RewardModel(Protocol):
    """Anything that scores completions."""

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """A score of each completion of the prompt at the same place, higher for better; NaN or infinite where it has none."""
        ...


@dataclass(frozen=True)
class RewardSpec:
    """How to set up a reward model; plain data, so that it can be sent to an actor."""

    model: str
    """A folder that `inspect_reward_model` passed."""
    dtype: str = "float32"
    batch_tokens: int = 16384
    """Tokens, padding included, that go through the model at once."""
    threads: int = 1
    """Threads of the process that an actor runs in."""


class SequenceClassifier:
    """A reward model as most are published: a language model whose head has one output, read at the last token.

    The same call gives the same scores, to the last bit.
    """

    def __init__(self, spec: RewardSpec) -> None:
        """Raises InputError where the weights lack a part of the model."""
        import torch
        from transformers import AutoModelForSequenceClassification

        self._spec = spec
        self._tokenizer = load_tokenizer(spec.model)
        self._special = sorted(str(token) for token in self._tokenizer.added_tokens_decoder.values() if token.special)
        model, found = AutoModelForSequenceClassification.from_pretrained(
            spec.model, dtype=getattr(torch, spec.dtype), use_safetensors=True, trust_remote_code=False, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers would draw them at random
            raise InputError(f"{SECTION}: {spec.model} lacks {', '.join(sorted(found['missing_keys']))}; copy the model again")
        self._model: Any = model.eval().requires_grad_(False).to("cuda" if torch.cuda.is_available() else "cpu")
        config = model.config.get_text_config()
        self._padding: int | None = config.pad_token_id
        self._context: int | None = getattr(config, "max_position_embeddings", None)

    def score(self, prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        """The model's output, a logit, for each pair; a repeated one is computed once. NaN where a text does not fit the context."""
        pairs = list(zip(prompts, completions, strict=True))
        distinct = list(dict.fromkeys(pairs))
        encoded = [self.encode(*pair) for pair in distinct]
        scores = dict.fromkeys(distinct, float("nan"))
        for batch in self._batches(encoded):
            rows = self._logits([encoded[index] for index in batch])
            scores |= {distinct[index]: value for index, value in zip(batch, rows, strict=True)}
        return [scores[pair] for pair in pairs]

    def encode(self, prompt: str, completion: str) -> list[int]:
        """The tokens of both as turns of the chat template.

        Where one of them spells a special token, each is read by itself and as plain text, so that no answer can end its own turn.
        """
        if not any(token in text for token in self._special for text in (prompt, completion)):
            return self._tokenizer(rendered(self._tokenizer, prompt, completion), add_special_tokens=False)["input_ids"]
        parts = around(self._tokenizer)
        opened, answered, closed = (self._tokenizer(part, add_special_tokens=False)["input_ids"] for part in parts)
        texts = [encode_completion(self._tokenizer, text) for text in (prompt, completion)]
        return [*opened, *texts[0], *answered, *texts[1], *closed]

    def _batches(self, encoded: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Indices of the texts that fit the context."""
        lengths = {index: len(ids) for index, ids in enumerate(encoded) if self._context is None or len(ids) <= self._context}
        # The score is read at the last token that is not the padding one: without one, transformers takes texts singly.
        return longest_first(lengths, 1 if self._padding is None else self._spec.batch_tokens)

    def _logits(self, rows: Sequence[list[int]]) -> list[float]:
        """One a row, of rows that are filled up on the right."""
        import torch

        longest = max(map(len, rows))
        ids_NT = torch.tensor([row + [self._padding or 0] * (longest - len(row)) for row in rows], device=self._model.device)
        mask_NT = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=self._model.device)
        with torch.inference_mode():
            logits_N1 = self._model(input_ids=ids_NT, attention_mask=mask_NT, use_cache=False).logits
        return logits_N1[:, 0].double().tolist()
