"""Token ids in as many bits as they need."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raydistill.students.packing import bits_of, pack_ids, packed_width, unpack_ids

vocabularies = st.one_of(st.integers(1, 300), st.sampled_from([2**15, 2**15 + 1, 151_936, 2**18, 2**18 + 1, 2**31 - 1]))


@given(st.data(), vocabularies, st.integers(0, 9), st.integers(1, 20))
def test_ids_come_back_exactly(data: st.DataObject, vocabulary: int, tokens: int, k: int) -> None:
    ids_TK = data.draw(arrays(np.int32, (tokens, k), elements=st.integers(0, vocabulary - 1)))
    bits = bits_of(vocabulary)
    packed = pack_ids(ids_TK, bits)
    assert packed.shape == (tokens, packed_width(k, bits))
    found = unpack_ids(packed, k, bits)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, ids_TK)


@pytest.mark.parametrize(("vocabulary", "bits"), [(1, 1), (2, 1), (3, 2), (256, 8), (257, 9), (49_152, 16), (262_144, 18), (262_145, 19)])
def test_bits(vocabulary: int, bits: int) -> None:
    assert bits_of(vocabulary) == bits


def test_a_row_is_the_binary_digits_of_its_ids() -> None:
    packed = pack_ids(np.array([[5, 0, 7], [1, 2, 3]], np.int32), 3)
    assert ["".join(f"{byte:08b}" for byte in row) for row in packed] == ["1010001110000000", "0010100110000000"]


@pytest.mark.parametrize("id_", [-1, 8])
def test_an_id_that_does_not_fit_is_refused(id_: int) -> None:
    with pytest.raises(ValueError, match=r"^ids from .* do not fit 3 bits$"):
        pack_ids(np.array([[1, id_]], np.int32), 3)
