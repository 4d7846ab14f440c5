"""Token ids at as many bits as the vocabulary needs."""

from __future__ import annotations

from typing import Any

import numpy as np

Ids = np.ndarray[Any, np.dtype[np.int32]]
Packed = np.ndarray[Any, np.dtype[np.uint8]]


def bits_of(vocabulary: int) -> int:
    """Bits that tell this many ids apart: ceil(log2 V), at least 1."""
    return max(1, (vocabulary - 1).bit_length())


def packed_width(k: int, bits: int) -> int:
    """Bytes that `k` ids of a row take up."""
    return -(-k * bits // 8)


def pack_ids(ids_TK: Ids, bits: int) -> Packed:
    """(T, `packed_width`): each row is the K ids of one token, the most significant bit first, filled up to a byte with zeros.

    Raises ValueError for an id that does not fit.
    """
    if ids_TK.size and not 0 <= ids_TK.min() <= ids_TK.max() < 2**bits:
        raise ValueError(f"ids from {ids_TK.min()} to {ids_TK.max()} do not fit {bits} bits")
    tokens, k = ids_TK.shape
    bytes_TK4 = np.ascontiguousarray(ids_TK, dtype=">u4").view(np.uint8).reshape(tokens, k, 4)
    return np.packbits(np.unpackbits(bytes_TK4, axis=-1)[..., 32 - bits :].reshape(tokens, k * bits), axis=1)


def unpack_ids(packed: Packed, k: int, bits: int) -> Ids:
    """The (T, K) ids that `pack_ids` was given."""
    tokens = len(packed)
    bits_TK32 = np.zeros((tokens, k, 32), np.uint8)
    bits_TK32[..., 32 - bits :] = np.unpackbits(packed, axis=1, count=k * bits).reshape(tokens, k, bits)
    return np.packbits(bits_TK32, axis=-1).view(">u4")[..., 0].astype(np.int32)
