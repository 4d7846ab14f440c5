"""Writes a teacher's scores of fixed traces; `offline` says what the folder holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from raydistill.config.models import ModelConfig
from raydistill.errors import InputError
from raydistill.files import whole_folder
from raydistill.models.checkpoint import weights_digest
from raydistill.models.preflight import ModelFacts
from raydistill.models.text import id_count, vocabulary_digest
from raydistill.scoring.forward import TokenTopK
from raydistill.students.data import Reader, Trace
from raydistill.students.job import make_reader
from raydistill.students.offline_card import CARD_FILE, TRACES_FILE, Place, Scoring, TeacherCard, check_scoring, shard_name
from raydistill.students.packing import bits_of, pack_ids

SHARD_TOKENS = 2**18
"""Some 75 MB with 64 tokens each; this much is held in memory."""

Score = Callable[[Sequence[Sequence[int]], Sequence[Sequence[int]]], list[TokenTopK]]
"""From the token ids of prompts and of what follows them, such as `Scorer.token_topk` with its k and temperature."""


@dataclass(frozen=True)
class Scored:
    """A trace, its tokens as the teacher reads it, and what the teacher says at each."""

    trace: Trace
    token_ids: tuple[int, ...]
    topk: TokenTopK


def scoring_of(facts: ModelFacts, config: ModelConfig, k: int, temperature: float = 1.0) -> Scoring:
    """How a teacher that was inspected will score, by `Scorer.token_topk`. Reads all of its weights for their digest."""
    reader = make_reader(facts, config)
    return Scoring(
        teacher=config.model,
        weights=weights_digest(facts.checkpoint),
        tokens=vocabulary_digest(reader.tokenizer),
        template=facts.template,
        prompt_format=config.prompt_format,
        system_prompt=config.system_prompt,
        end_id=reader.end_id,
        vocabulary=min(id_count(reader.tokenizer), facts.embedding_rows),
        k=k,
        temperature=temperature,
    )


def score_traces(score: Score, reader: Reader, traces: Sequence[Trace], batch: int = 64) -> Iterator[Scored]:
    """Score traces as the teacher reads them, so many at a time."""
    for start in range(0, len(traces), batch):
        some = traces[start : start + batch]
        encoded = [reader.trace(trace) for trace in some]
        results = score([read.prompt_ids for read in encoded], [read.completion_ids for read in encoded])
        for trace, read, topk in zip(some, encoded, results, strict=True):
            yield Scored(trace, read.completion_ids, topk)


def write_offline(folder: Path, scoring: Scoring, scored: Iterable[Scored], shard_tokens: int = SHARD_TOKENS) -> TeacherCard:
    """Write `folder`, which is whole or absent, from a stream of scored traces; a shard holds `shard_tokens` or one longer trace.

    Raises InputError if the folder is there already, the vocabulary has fewer than k tokens, or there is no token to write;
    ValueError for scores that are not as `scoring` says.
    """
    if folder.exists():
        raise InputError(f"{folder}: is there already; remove it, or write to another folder")
    check_scoring(folder, scoring)
    with whole_folder(folder) as unfinished:
        writer = _Writer(unfinished, scoring, shard_tokens)
        with (unfinished / TRACES_FILE).open("w", encoding="utf-8") as lines:
            lines.writelines(f"{json.dumps(asdict(writer.add(one)))}\n" for one in scored)
        writer.flush()
        if not writer.tokens:
            raise InputError(f"{folder}: there is no token to score; give traces that are not empty")
        card = writer.card()
        (unfinished / CARD_FILE).write_text(card.model_dump_json(indent=2))
    return card


class _Writer:
    """Fills shard after shard."""

    def __init__(self, folder: Path, scoring: Scoring, shard_tokens: int) -> None:
        self.tokens = 0
        self._folder, self._scoring, self._shard_tokens = folder, scoring, shard_tokens
        self._traces = self._shard = self._filled = self._bytes = 0
        self._waiting: list[dict[str, Any]] = []

    def add(self, one: Scored) -> Place:
        count = len(one.token_ids)
        if count and self._filled and self._filled + count > self._shard_tokens:
            self.flush()
        self._waiting.append(_columns(one, self._scoring))
        place = Place(one.trace.prompt_text, one.trace.completion_text, one.trace.ended, self._shard, self._filled, count)
        self._filled += count
        self.tokens += count
        self._traces += 1
        return place

    def flush(self) -> None:
        """Write the shard, unless it is empty."""
        if not self._waiting:
            return
        file = self._folder / shard_name(self._shard)
        save_file({name: np.concatenate([columns[name] for columns in self._waiting]) for name in self._waiting[0]}, file)
        self._bytes += file.stat().st_size
        self._shard += 1
        self._filled = 0
        self._waiting = []

    def card(self) -> TeacherCard:
        return TeacherCard(
            **self._scoring.model_dump(),
            traces=self._traces,
            trace_tokens=self.tokens,
            shards=self._shard,
            bytes_per_token=round(self._bytes / self.tokens, 1),
        )


def _columns(one: Scored, scoring: Scoring) -> dict[str, Any]:
    """The tensors of one trace, as a shard holds them."""
    shapes = (one.topk.logprobs_TK.shape, one.topk.ids_TK.shape, one.topk.logprobs_T.shape)
    tokens = len(one.token_ids)
    if shapes != ((tokens, scoring.k), (tokens, scoring.k), (tokens,)):
        raise ValueError(f"scores of {tokens} tokens at k = {scoring.k} have the shapes {shapes}")
    lowest = np.finfo(np.float16).min
    mass_T = np.exp(one.topk.logprobs_TK, dtype=np.float64).sum(-1).clip(max=1)
    return {
        "token_ids": np.array(one.token_ids, np.int32),
        "logprobs": one.topk.logprobs_T,
        "topk_ids": pack_ids(one.topk.ids_TK, bits_of(scoring.vocabulary)),
        "topk_logprobs": one.topk.logprobs_TK.clip(min=lowest).astype(np.float16),
        "topk_mass": mass_T.astype(np.float32),
    }
