import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gradshard.storage.formats import bitplanes

SIGNS = arrays.arrays(np.int8, st.tuples(st.integers(1, 5), st.integers(1, 40)), elements=st.integers(-1, 1))


@given(SIGNS)
def test_unpacking_gives_back_what_was_packed(signs):
    assert np.array_equal(bitplanes.unpack(bitplanes.pack(signs), signs.shape[1]), signs)


@given(SIGNS)
def test_packed_rows_are_legal_and_take_two_bits_a_pixel(signs):
    planes = bitplanes.pack(signs)
    assert planes.shape == (len(signs), 2, -(-signs.shape[1] // 8))
    assert len(bitplanes.illegal_rows(planes, signs.shape[1])) == 0


def test_the_encoding_is_the_documented_one():
    planes = bitplanes.pack(np.array([[1, -1, 0, 1, -1, -1, -1, 0, 1]], dtype=np.int8))
    assert planes.tolist() == [[[0b10010000, 0b10000000], [0b00100001, 0b00000000]]]


def test_rows_never_written_decode_to_2_and_are_named():
    planes = bitplanes.pack(np.zeros((3, 12), dtype=np.int8))
    planes[1] = bitplanes.FILL_BYTE
    assert (bitplanes.unpack(planes, 12)[1] == bitplanes.UNWRITTEN).all()
    assert bitplanes.illegal_rows(planes, 12).tolist() == [1]


@pytest.mark.parametrize("plane", [0, 1])
def test_a_padding_bit_that_is_set_makes_a_row_illegal(plane):
    planes = bitplanes.pack(np.ones((2, 12), dtype=np.int8))
    planes[1, plane, -1] |= 0b0001
    assert bitplanes.illegal_rows(planes, 12).tolist() == [1]
