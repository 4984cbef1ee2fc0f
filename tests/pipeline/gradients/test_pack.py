"""Signs packed on a device are the planes that NumPy packs."""

import numpy as np
import pytest
import torch

from gradshard.pipeline.gradients import pack
from gradshard.pipeline.gradients.pack import pack_signs
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.formats import bitplanes
from tests.helpers.stores import random_signs


@pytest.mark.parametrize("shape", [(7, 1, 28, 28), (5, 3, 5, 7), (3, 1, 3, 3)])
def test_packed_signs_are_those_of_the_store(shape):
    signs = torch.from_numpy(random_signs(shape[0], int(np.prod(shape[1:])), seed=0)).view(shape)
    expected = bitplanes.pack(signs.flatten(1).numpy())
    assert np.array_equal(pack_signs(signs.float()).numpy(), expected)
    assert torch.equal(unpack_signs(pack_signs(signs), signs.shape), signs.float())
    # What a GPU computes.
    assert np.array_equal(pack._added_up(signs.flatten(1)).numpy(), expected)
