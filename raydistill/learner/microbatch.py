"""From a step's samples to the tensors of each forward pass: which process computes what, padded how."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from raydistill.learner.batch import Sample, Tokens

Anchor = Sequence[np.ndarray[Any, Any]]
"""The anchor's log-probabilities, in nats, one array a sample: (T,) of its completion tokens for the k3 estimator, (T, V)
of the whole vocabulary at each completion position for the exact KL."""


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass. Axes N (sequences), T (positions), K (their completion tokens one after another), V (vocabulary)."""

    ids_NT: Tensor
    """Prompt and completion, padded on the right."""
    attention_NT: Tensor
    """1 up to each sequence's own length, 0 after it, whatever the ids are."""
    positions_K: Tensor
    """Where each completion token is predicted: an index into the N * T positions, one before the token itself."""
    targets_K: Tensor
    rollout_K: Tensor
    advantages_K: Tensor
    anchor: Tensor
    """(K,) or (K, V), see `Anchor`."""


def check(samples: Sequence[Sample], anchor: Anchor, vocabulary: int | None) -> None:
    """Raise ValueError unless samples and anchor arrays belong together; these are (T,) or, with a vocabulary of V, (T, V)."""
    if len(anchor) != len(samples):
        raise ValueError(f"{len(samples)} samples but {len(anchor)} arrays of anchor log-probabilities")
    for n, (sample, array) in enumerate(zip(samples, anchor, strict=True)):
        length = len(sample.completion_ids)
        if not sample.prompt_ids:
            raise ValueError(f"sample {n} has an empty prompt: nothing would predict its first completion token")
        if len(sample.rollout_logprobs) != length:
            raise ValueError(f"sample {n} has {length} completion tokens but {len(sample.rollout_logprobs)} rollout log-probabilities")
        shape = (length,) if vocabulary is None else (length, vocabulary)
        if array.shape != shape:
            raise ValueError(f"sample {n} needs anchor log-probabilities of shape {shape}, not {array.shape}")


def split(samples: Sequence[Sample], parts: int) -> list[list[int]]:
    """Indices of the samples in at most `parts` runs of nearly equal size, in order; runs without a token are left out."""
    runs = [run.tolist() for run in np.array_split(np.arange(len(samples)), parts)]
    return [run for run in runs if any(samples[i].completion_ids for i in run)]


def spread(samples: Sequence[Tokens], indices: Sequence[int], world_size: int, max_tokens: int) -> list[list[list[int]]]:
    """Sample indices of each micro-batch of each process, the same number of micro-batches for every process.

    Longest first, dealt out in turn, so that processes get like lengths, rows of a micro-batch need little padding and a
    lack of memory shows at once. A micro-batch has at most `max_tokens` padded tokens, or one sequence where that alone
    is longer. ZeRO-3 gathers parameters in every pass, so all processes make the same number of them: some may be empty.
    """
    ordered = sorted(indices, key=lambda i: (-_length(samples[i]), i))
    plans = [_pack(samples, ordered[rank::world_size], max_tokens) for rank in range(world_size)]
    passes = max(len(plan) for plan in plans)
    return [plan + [[] for _ in range(passes - len(plan))] for plan in plans]


def _length(sample: Tokens) -> int:
    return len(sample.prompt_ids) + len(sample.completion_ids)


def _pack(samples: Sequence[Tokens], ordered: Sequence[int], max_tokens: int) -> list[list[int]]:
    packed: list[list[int]] = []
    for i in ordered:
        width = _length(samples[packed[-1][0]]) if packed else 0
        if packed and (len(packed[-1]) + 1) * width <= max_tokens:
            packed[-1].append(i)
        else:
            packed.append([i])
    return packed


def collate(samples: Sequence[Sample], anchor: Anchor, indices: Sequence[int], device: torch.device) -> MicroBatch:
    """The tensors of one micro-batch; without indices, one token of which nothing is predicted."""
    rows = [samples[i] for i in indices]
    width = max((_length(row) for row in rows), default=1)
    ids_NT = np.zeros((max(1, len(rows)), width), dtype=np.int64)
    attention_NT = np.zeros_like(ids_NT)
    attention_NT[len(rows) :] = 1
    for n, row in enumerate(rows):
        ids_NT[n, : _length(row)] = row.prompt_ids + row.completion_ids
        attention_NT[n, : _length(row)] = 1
    starts = [n * width + len(row.prompt_ids) - 1 for n, row in enumerate(rows)]
    positions = [np.arange(start, start + len(row.completion_ids)) for start, row in zip(starts, rows, strict=True)]

    def tensor(arrays: Sequence[Any], dtype: type) -> Tensor:
        joined = np.concatenate([np.asarray(array, dtype=dtype) for array in arrays]) if arrays else np.zeros(0, dtype=dtype)
        return torch.from_numpy(joined).to(device)

    return MicroBatch(
        ids_NT=torch.from_numpy(ids_NT).to(device),
        attention_NT=torch.from_numpy(attention_NT).to(device),
        positions_K=tensor(positions, np.int64),
        targets_K=tensor([row.completion_ids for row in rows], np.int64),
        rollout_K=tensor([row.rollout_logprobs for row in rows], np.float32),
        advantages_K=tensor([np.full(len(row.completion_ids), row.advantage) for row in rows], np.float32),
        anchor=tensor([anchor[i] for i in indices] or [anchor[0][:0]], np.float32),
    )
