"""Log-probabilities of given tokens under a causal model, in batches, without ever holding logits of a whole batch.

P counts positions of several pairs; D, hidden units; K, the likeliest tokens at a position.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from raydistill.errors import RunError
from raydistill.scoring.batches import longest_first

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_CHUNK_ELEMENTS = 2**24
"""Logits computed at once: 64 MiB in float32."""

Pair = tuple[Sequence[int], Sequence[int]]
"""The tokens of a prompt, and those whose log-probabilities are asked for; the former may not be empty."""
_PerPosition = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]]
"""From logits (P, V) and targets (P,) to tensors of P rows each."""
Array = np.ndarray[Any, np.dtype[np.float32]]
Ids = np.ndarray[Any, np.dtype[np.int32]]


class TokenTopK(NamedTuple):
    """What a model says at each of T tokens, in nats."""

    logprobs_TK: Array
    """Of the K likeliest tokens in descending order, normalised over the whole vocabulary."""
    ids_TK: Ids
    logprobs_T: Array
    """Of the tokens themselves, at temperature 1."""


class Forward:
    """One model, `batch_tokens` tokens at a time, padding included."""

    def __init__(self, model: PreTrainedModel, batch_tokens: int) -> None:
        self._model = model
        self._head = _head_of(model)
        self._batch_tokens = batch_tokens
        config = model.config.get_text_config()
        self.vocabulary: int = config.vocab_size
        self._context: int | None = getattr(config, "max_position_embeddings", None)

    def token_logprobs(self, pairs: Sequence[Pair]) -> list[Array]:
        """For each pair the log-probability, in nats, of each target given what precedes it: (T,), float32.

        Raises RunError for a pair that does not fit the model's context.
        """
        return [logprobs_T for (logprobs_T,) in self._map(pairs, _of_targets)]

    def token_distributions(self, pairs: Sequence[Pair]) -> list[Array]:
        """For each pair the log-probabilities of all tokens at the place of each target: (T, V), float32.

        Raises RunError for a pair that does not fit the model's context.
        """
        return [logprobs_TV for (logprobs_TV,) in self._map(pairs, _of_all)]

    def token_topk(self, pairs: Sequence[Pair], k: int, temperature: float = 1.0, ids: int | None = None) -> list[TokenTopK]:
        """For each pair the model's `k` likeliest tokens at the place of each target, at a temperature, and the targets themselves.

        Only the first `ids` of the vocabulary are chosen from: a model may have rows beyond its tokenizer's. Raises ValueError
        unless 1 <= k <= ids <= V and the temperature is positive and finite; RunError for a pair that does not fit the context.
        """
        ids = self.vocabulary if ids is None else ids
        if not 1 <= k <= ids <= self.vocabulary:
            raise ValueError(f"k must be from 1 to the {ids} of the vocabulary's {self.vocabulary} to choose from, not {k}")
        if not 0 < temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, not {temperature}")
        return [TokenTopK(*arrays) for arrays in self._map(pairs, _of_topk(k, temperature, ids))]

    def _map(self, pairs: Sequence[Pair], per_position: _PerPosition) -> list[tuple[np.ndarray[Any, Any], ...]]:
        """`per_position` of all targets; its rows go back to their pairs."""
        nothing = per_position(torch.zeros(0, self.vocabulary), torch.zeros(0, dtype=torch.long))
        results = [tuple(tensor.numpy() for tensor in nothing)] * len(pairs)
        for batch in self.batches(pairs):
            chunks = self._rows([pairs[index] for index in batch], per_position)
            ends = np.cumsum([len(pairs[index][1]) for index in batch])
            columns = [np.split(torch.cat(parts).cpu().numpy(), ends[:-1]) for parts in zip(*chunks, strict=True)]
            for index, *pieces in zip(batch, *columns, strict=True):
                results[index] = tuple(pieces)
        return results

    def batches(self, pairs: Sequence[Pair]) -> Iterator[list[int]]:
        """Indices of the pairs that ask for something, as `longest_first` has them. Raises RunError as `require_length` does."""
        lengths = {index: _length(pair) for index, pair in enumerate(pairs) if pair[1]}
        for batch in longest_first(lengths, self._batch_tokens):
            self.require_length(lengths[batch[0]])
            yield batch

    def require_length(self, tokens: int) -> None:
        """Raises RunError where so many tokens do not fit the model's context."""
        if self._context is not None and tokens > self._context:
            raise RunError(
                f"a text of {tokens} tokens does not fit the {self._context} of {self._model.config.name_or_path}; "
                "lower max_new_tokens or choose a model with a longer context"
            )

    @torch.inference_mode()
    def _rows(self, pairs: Sequence[Pair], per_position: _PerPosition) -> Iterator[tuple[torch.Tensor, ...]]:
        hidden_PD = self.hidden(pairs)
        targets_P = torch.tensor([token for _, targets in pairs for token in targets], device=hidden_PD.device)
        step = max(1, _CHUNK_ELEMENTS // self.vocabulary)
        for start in range(0, len(targets_P), step):
            logits_PV = self.logits(hidden_PD[start : start + step])
            yield per_position(logits_PV.float(), targets_P[start : start + step])

    def logits(self, hidden_PD: torch.Tensor) -> torch.Tensor:
        """Logits (P, V) of final hidden states."""
        return self._head(inputs_embeds=hidden_PD[None]).logits[0]

    def hidden(self, pairs: Sequence[Pair]) -> torch.Tensor:
        """Final hidden states (P, D) at the positions that predict the targets, pair by pair.

        Rows are filled up on the right with token 0, which a causal model cannot see from where it is read out: no mask is
        needed, and none could be derived from an id, since a model may well sample its padding token.
        """
        sequences = [[*prompt, *targets[:-1]] for prompt, targets in pairs]
        longest = max(map(len, sequences))
        ids_NT = torch.tensor([ids + [0] * (longest - len(ids)) for ids in sequences], device=self._model.device)
        places = [(row, len(p) - 1 + t) for row, (p, targets) in enumerate(pairs) for t in range(len(targets))]
        rows_P, columns_P = torch.tensor(places, device=ids_NT.device).T
        return self._model.base_model(input_ids=ids_NT, use_cache=False)[0][rows_P, columns_P]


# log_softmax itself loses the tail of a large vocabulary to rounding on a CPU, and finds every token of 262,144 some 3e-5 nats
# too likely; logsumexp does not, and is no slower.


def _of_targets(logits_PV: torch.Tensor, targets_P: torch.Tensor) -> tuple[torch.Tensor]:
    return (logits_PV.gather(-1, targets_P[:, None])[:, 0] - logits_PV.logsumexp(-1),)


def _of_all(logits_PV: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor]:
    return (logits_PV - logits_PV.logsumexp(-1, keepdim=True),)


def _of_topk(k: int, temperature: float, ids: int) -> _PerPosition:
    def per_position(logits_PV: torch.Tensor, targets_P: torch.Tensor) -> tuple[torch.Tensor, ...]:
        softened_PV = logits_PV / temperature
        logits_PK, ids_PK = softened_PV[:, :ids].topk(k)
        return logits_PK - softened_PV.logsumexp(-1, keepdim=True), ids_PK.int(), *_of_targets(logits_PV, targets_P)

    return per_position


def _length(pair: Pair) -> int:
    return len(pair[0]) + len(pair[1]) - 1


def _head_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its backbone: what it is given as embeddings it takes for final hidden states. Shares the weights.

    Architectures scale or cap their logits each in its own `forward`; run like this, none of that has to be repeated here.
    """
    from transformers.modeling_outputs import BaseModelOutputWithPast

    class Hidden(BaseModelOutputWithPast):
        def __getattr__(self, name: str) -> None:
            """Some architectures look for more: router logits, cross attentions, image features."""

    class Passthrough(torch.nn.Module):
        def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> Hidden:
            return Hidden(last_hidden_state=inputs_embeds)  # type: ignore[arg-type]

    head = copy.copy(model)
    head._modules = {**model._modules, model.base_model_prefix: Passthrough()}
    return head
