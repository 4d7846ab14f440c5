"""A teacher's scores of fixed traces, in a folder that students are trained from without the teacher.

    teacher.json              a TeacherCard: whose scores they are, and how they were made
    traces.jsonl              a line a trace: its texts, and where its tokens are
    traces-00000.safetensors  tokens of whole traces, one after another; the next shard follows where this one is full

A shard holds for each token, the end token included where the trace ended:

    token_ids        int32    the token
    logprobs         float32  its log-probability, at temperature 1
    topk_ids         uint8    the K likeliest tokens at its place, packed by `pack_ids`
    topk_logprobs    float16  their log-probabilities, normalised over the vocabulary, at the card's temperature
    topk_mass        float32  the sum of their probabilities

In float16 a log-probability keeps 11 bits, which is plenty for each token but not for the tail, 1 - mass: 64 tokens of equal
probability can have a mass that is wrong by 2e-3. So the mass is kept as well, and what is read is normalised to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from raydistill.errors import InputError, reason
from raydistill.students.data import Trace
from raydistill.students.losses import TopK
from raydistill.students.offline_card import (
    AGAIN,
    TRACES_FILE,
    Place,
    TeacherCard,
    check_temperature,
    check_tokens,
    check_weights,
    read_card,
    read_places,
    shard_name,
)
from raydistill.students.packing import bits_of, packed_width, unpack_ids

if TYPE_CHECKING:
    from raydistill.students.data import Reader

_COLUMNS = {"token_ids": "I32", "logprobs": "F32", "topk_ids": "U8", "topk_logprobs": "F16", "topk_mass": "F32"}


class ScoredTrace(NamedTuple):
    """The T tokens of a trace and what the teacher says at each of them; the M of several traces, one after another."""

    token_ids_T: torch.Tensor
    """Of type int64, the end token included."""
    logprobs_T: torch.Tensor
    """Of the tokens, in nats, at temperature 1."""
    topk: TopK
    """(T, K), at the temperature of `TeacherCard`."""


class OfflineTeacher:
    """A teacher's scores of fixed traces. Texts are in memory; what is scored of a trace is read when it is asked for."""

    def __init__(self, folder: Path, card: TeacherCard, places: Sequence[Place]) -> None:
        self.folder = folder
        self.card = card
        self._places = tuple(places)
        self.traces = tuple(Trace(place.prompt, place.completion, place.ended) for place in places)

    @classmethod
    def open(
        cls, folder: Path, weights: str | None = None, reader: Reader | None = None, temperature: float | None = None
    ) -> OfflineTeacher:
        """The teacher in `folder`, whose files are all there and belong together.

        `weights` is the digest that the teacher must have; `reader` reads texts for a model whose token ids must mean what they
        mean in the folder: a student that is compared token by token, or the teacher by which the tokens are spelled;
        `temperature` is that of the loss that the K tokens are for.
        Raises InputError naming the file, or the field of teacher.json, that is not as it should be.
        """
        card = read_card(folder)
        check_weights(folder, card, weights)
        check_temperature(folder, card, temperature)
        if reader is not None:
            check_tokens(folder, card, reader)
        teacher = cls(folder, card, read_places(folder, card))
        teacher._check_shards()
        return teacher

    def scored(self, index: int) -> ScoredTrace:
        """What the teacher says of the trace at a place in `traces`."""
        place = self._places[index]
        # safetensors has no empty slice behind the last row, where a trace without tokens may be.
        start = place.start if place.tokens else 0
        with safe_open(self.folder / shard_name(place.shard), framework="np") as shard:
            columns = {name: shard.get_slice(name)[start : start + place.tokens] for name in _COLUMNS}
        return _decoded(columns, self.card)

    def joined(self, indices: Sequence[int]) -> ScoredTrace:
        """What it says of several traces, one after another, as `completion_logits` has what a student says of them."""
        traces = [self.scored(index) for index in indices]
        topk = TopK(*(torch.cat(parts) for parts in zip(*(trace.topk for trace in traces), strict=True)))
        return ScoredTrace(torch.cat([trace.token_ids_T for trace in traces]), torch.cat([trace.logprobs_T for trace in traces]), topk)

    def _check_shards(self) -> None:
        """By their headers. Raises InputError for a shard that is missing, cut short, or another folder's."""
        tokens = [0] * self.card.shards
        for place in self._places:
            tokens[place.shard] += place.tokens
        width = packed_width(self.card.k, bits_of(self.card.vocabulary))
        for shard, count in enumerate(tokens):
            shapes = {"topk_ids": [count, width], "topk_logprobs": [count, self.card.k]}
            expected = {name: (dtype, shapes.get(name, [count])) for name, dtype in _COLUMNS.items()}
            file = self.folder / shard_name(shard)
            if _layout(file) != expected:
                raise InputError(
                    f"{file}: does not hold the {count} tokens that {TRACES_FILE} places there; copy the folder again, or {AGAIN}"
                )


def _layout(file: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of each tensor of a shard."""
    try:
        with safe_open(file, framework="np") as shard:
            slices = {name: shard.get_slice(name) for name in shard.keys()}  # noqa: SIM118 - not a mapping
            return {name: (column.get_dtype(), column.get_shape()) for name, column in slices.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file}: is missing or damaged ({reason(error)}); copy the folder again, or {AGAIN}") from None


def _decoded(columns: dict[str, Any], card: TeacherCard) -> ScoredTrace:
    rounded_TK = torch.from_numpy(columns["topk_logprobs"].astype(np.float32))
    mass_T = torch.from_numpy(columns["topk_mass"])
    logprobs_TK = rounded_TK + (mass_T.log() - rounded_TK.logsumexp(-1))[:, None]
    ids_TK = torch.from_numpy(unpack_ids(columns["topk_ids"], card.k, bits_of(card.vocabulary))).long()
    return ScoredTrace(torch.from_numpy(columns["token_ids"]).long(), torch.from_numpy(columns["logprobs"]), TopK(logprobs_TK, ids_TK))
