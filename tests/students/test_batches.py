"""Padding and order of token ids."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raydistill.students.batches import pad, seeded_order
from raydistill.students.data import Encoded

ids = st.lists(st.integers(0, 30), min_size=1, max_size=9).map(tuple)


@given(st.lists(st.builds(Encoded, ids, ids), min_size=1, max_size=6))
def test_padding_keeps_every_sequence_and_marks_its_completion_alone(sequences: list[Encoded]) -> None:
    batch = pad(sequences)
    assert batch.tokens == sum(len(sequence.completion_ids) for sequence in sequences)
    for row, marks, sequence in zip(batch.ids_NT, batch.is_completion_NT, sequences, strict=True):
        whole = sequence.prompt_ids + sequence.completion_ids
        assert tuple(row[: len(whole)].tolist()) == whole
        assert tuple(row[marks].tolist()) == sequence.completion_ids
        assert int(marks.nonzero()[0]) == len(sequence.prompt_ids)


def test_a_pad_id_inside_a_completion_counts() -> None:
    batch = pad([Encoded((5, 6), (0, 7, 0)), Encoded((5,), (9,))])
    assert batch.is_completion_NT.tolist() == [[False, False, True, True, True], [False, True, False, False, False]]


@given(st.lists(st.builds(Encoded, ids, ids), min_size=2, max_size=6), st.data())
def test_rows_are_what_padding_them_alone_would_give(sequences: list[Encoded], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, max_size=4))
    rows, alone = pad(sequences).rows(chosen), pad([sequences[n] for n in chosen])
    assert torch.equal(rows.ids_NT, alone.ids_NT)
    assert torch.equal(rows.is_completion_NT, alone.is_completion_NT)


@given(st.lists(st.builds(Encoded, ids, ids), min_size=1, max_size=9), st.integers(1, 60), st.integers(0, 12))
def test_pieces_are_all_rows_by_length_within_both_limits(sequences: list[Encoded], tokens: int, padding: int) -> None:
    lengths = [len(sequence.prompt_ids) + len(sequence.completion_ids) for sequence in sequences]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("raydistill.students.batches._MAX_PADDING", padding)
        pieces = pad(sequences).pieces(tokens)
    assert [row for piece in pieces for row in piece] == sorted(range(len(lengths)), key=lambda row: -lengths[row])
    for piece in pieces:
        size = len(piece) * lengths[piece[0]]
        assert len(piece) == 1 or (size <= tokens and size - sum(lengths[row] for row in piece) <= padding)
    for piece, following in pairwise(pieces):  # none is cut without need
        size = (len(piece) + 1) * lengths[piece[0]]
        assert size > tokens or size - sum(lengths[row] for row in [*piece, following[0]]) > padding


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 12), st.integers(0, 2**40))
def test_order_uses_every_trace_equally_often(count: int, batch: int, steps: int, seed: int) -> None:
    batches = list(seeded_order(count, batch, steps, seed))
    assert [len(indices) for indices in batches] == [batch] * steps
    used = Counter(index for indices in batches for index in indices)
    assert max(used.values()) - min(used[index] for index in range(count)) <= 1
    assert batches == list(seeded_order(count, batch, steps, seed))


@pytest.mark.parametrize("other", [1, 2, 3])
def test_another_seed_is_another_order(other: int) -> None:
    assert list(seeded_order(100, 10, 3, 0)) != list(seeded_order(100, 10, 3, other))


def test_nothing_has_no_order() -> None:
    with pytest.raises(ValueError, match="nothing"):
        next(seeded_order(0, 2, 1, 0))
