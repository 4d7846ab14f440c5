"""Which texts go through a model together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


def longest_first(lengths: Mapping[int, int], batch_tokens: int) -> Iterator[list[int]]:
    """Indices of texts by their lengths in tokens, in batches of at most `batch_tokens`, padding included, or of one text.

    Longest first, so that a batch has little padding and memory runs out early.
    """
    order = sorted(lengths, key=lambda index: -lengths[index])
    start = 0
    while start < len(order):
        rows = max(1, batch_tokens // lengths[order[start]])
        yield order[start : start + rows]
        start += rows
