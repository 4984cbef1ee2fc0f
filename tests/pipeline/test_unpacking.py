import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.unpacking import unpack_signs
from storage.signs import bitplanes


@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))
def test_unpacking_on_the_device_is_unpacking_in_storage(rows, channels, height, width, seed):
    pixels = channels * height * width
    signs = np.random.default_rng(seed).integers(-1, 2, (rows, pixels), dtype=np.int8)
    planes = bitplanes.pack(signs)
    shape = torch.Size((rows, channels, height, width))
    unpacked = unpack_signs(torch.from_numpy(planes), shape)
    assert unpacked.dtype == torch.float32
    assert np.array_equal(unpacked.flatten(1).numpy(), bitplanes.unpack(planes, pixels))
