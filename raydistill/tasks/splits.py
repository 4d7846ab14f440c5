"""Prompts are assigned to train, tune and report by a hash of their id, before any model sees one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def hash_order(ids: Iterable[str], salt: str) -> list[str]:
    """`ids` ordered by SHA-256 of `salt:id`: an order that looks random and never changes."""
    return sorted(ids, key=lambda id_: hashlib.sha256(f"{salt}:{id_}".encode()).digest())


def split_by_hash(ids: Sequence[str], sizes: Sequence[int], salt: str) -> list[list[str]]:
    """Cut `ids`, in hash order, into consecutive disjoint parts of exactly these sizes.

    Raises ValueError if an id repeats or there are fewer ids than the sizes need.
    """
    if len(set(ids)) != len(ids):
        raise ValueError("ids repeat: a prompt could land in two splits")
    if sum(sizes) > len(ids):
        raise ValueError(f"{sum(sizes)} prompts wanted, {len(ids)} given")
    ordered = hash_order(ids, salt)
    parts, start = [], 0
    for size in sizes:
        parts.append(ordered[start : start + size])
        start += size
    return parts
