"""Token ids as tensors, padded by their own lengths, in a seeded order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from raydistill.students.data import Encoded

_MAX_PADDING = 256
"""Tokens of padding in a pass. Chosen for models of a few million parameters on a CPU, where a pass costs about as much as these."""


@dataclass(frozen=True)
class Batch:
    """Sequences padded on the right, where a causal model cannot see it: no attention mask is needed."""

    ids_NT: torch.Tensor
    is_completion_NT: torch.Tensor
    """True on completion tokens. Made from lengths: a pad id inside a completion is a token like any other."""

    @property
    def tokens(self) -> int:
        """Number of completion tokens."""
        return int(self.is_completion_NT.sum())

    @property
    def completion_ids(self) -> torch.Tensor:
        """All completion tokens, sequence by sequence; shape (tokens,)."""
        return self.ids_NT[self.is_completion_NT]

    def pieces(self, tokens: int) -> list[list[int]]:
        """Rows of like lengths, longest first, for a pass each; at most `tokens` tokens together, padding included, or one row.

        Padding is limited too: more of it would cost more than another pass.
        """
        lengths = (self.is_completion_NT * torch.arange(1, self.ids_NT.shape[1] + 1)).amax(-1).tolist()
        pieces: list[list[int]] = []
        padding = 0
        for row in sorted(range(len(lengths)), key=lambda n: -lengths[n]):
            width = lengths[pieces[-1][0]] if pieces else 0
            padding += width - lengths[row]
            if pieces and (len(pieces[-1]) + 1) * width <= tokens and padding <= _MAX_PADDING:
                pieces[-1].append(row)
            else:
                pieces.append([row])
                padding = 0
        return pieces

    def rows(self, rows: Sequence[int]) -> Batch:
        """Some of the sequences, without the columns that none of them uses."""
        ids_NT, is_completion_NT = self.ids_NT[rows], self.is_completion_NT[rows]
        used = is_completion_NT.any(dim=0).nonzero()
        end = int(used[-1]) + 1 if len(used) else 1
        return Batch(ids_NT[:, :end], is_completion_NT[:, :end])


def pad(sequences: Sequence[Encoded]) -> Batch:
    """One batch of all sequences. Positions beyond a sequence hold id 0 and are never looked at."""
    longest = max(len(sequence.prompt_ids) + len(sequence.completion_ids) for sequence in sequences)
    ids_NT = torch.zeros((len(sequences), longest), dtype=torch.long)
    is_completion_NT = torch.zeros((len(sequences), longest), dtype=torch.bool)
    for n, sequence in enumerate(sequences):
        start, end = len(sequence.prompt_ids), len(sequence.prompt_ids) + len(sequence.completion_ids)
        ids_NT[n, :end] = torch.tensor(sequence.prompt_ids + sequence.completion_ids)
        is_completion_NT[n, start:end] = True
    return Batch(ids_NT, is_completion_NT)


def seeded_order(count: int, batch: int, steps: int, seed: int) -> Iterator[list[int]]:
    """`steps` lists of `batch` indices below `count`: shuffled passes through all of them, one after the other without a gap.

    Raises ValueError, once the first list is asked for, if count < 1.
    """
    if count < 1:
        raise ValueError("nothing to put in an order")
    stream = torch.Generator().manual_seed(seed)
    queue: list[int] = []
    for _ in range(steps):
        while len(queue) < batch:
            queue += torch.randperm(count, generator=stream).tolist()
        yield queue[:batch]
        del queue[:batch]
