"""Weights on their way from a learner to the engines: size-capped buckets of plain bytes, with a version and a digest."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import torch


@dataclass(frozen=True)
class PackedTensor:
    """One tensor as bytes: Ray shares a numpy array between processes without a copy, and numpy knows no bfloat16."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray[Any, Any]


Bucket = tuple[PackedTensor, ...]


@dataclass(frozen=True)
class Weights:
    """One version of a model's weights, by reference: the driver passes this on and never holds a tensor."""

    version: int
    buckets: tuple[Any, ...]
    """Ray object references, each of a Bucket."""
    digest: str
    """`Digest` over all buckets in order: the receiver computes it again from what arrived."""


def pack(named_tensors: Iterable[tuple[str, torch.Tensor]], max_bytes: int) -> Iterator[Bucket]:
    """Buckets of at most `max_bytes` each, or of one tensor where that alone is larger."""
    import torch

    bucket: list[PackedTensor] = []
    size = 0
    for name, tensor in named_tensors:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        if bucket and size + data.nbytes > max_bytes:
            yield tuple(bucket)
            bucket, size = [], 0
        bucket.append(PackedTensor(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), data))
        size += data.nbytes
    if bucket:
        yield tuple(bucket)


def unpack(bucket: Bucket) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a bucket, copied: the bytes of a Ray object are read-only and go when the reference does."""
    import torch

    for packed in bucket:
        tensor = torch.from_numpy(packed.data.copy()).view(getattr(torch, packed.dtype))
        yield packed.name, tensor.reshape(packed.shape)


class Digest:
    """SHA-256 over names, types, shapes and bytes of tensors, in order."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, bucket: Bucket) -> None:
        for packed in bucket:
            self._hash.update(f"{packed.name}|{packed.dtype}|{packed.shape}|".encode())
            self._hash.update(packed.data.data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


class WeightsError(RuntimeError):
    """The weights that arrived are not those that were sent, or not those of this model."""


def arriving(weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors, fetched so that no more than a bucket is here at a time.

    The digest is known at the end only: a receiver may serve once this is exhausted. Raises WeightsError if it is another.
    """
    import ray

    digest = Digest()
    for reference in weights.buckets:
        bucket: Bucket = ray.get(reference)
        digest.add(bucket)
        yield from unpack(bucket)
    if digest.hexdigest() != weights.digest:
        raise WeightsError(f"weights {weights.version} arrived with digest {digest.hexdigest()[:12]}, sent was {weights.digest[:12]}")
