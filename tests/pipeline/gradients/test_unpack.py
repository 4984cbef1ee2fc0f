import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._inductor import metrics

from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes


def example(rows, channels, height, width, seed):
    """Packed signs, and the signs as a tensor (rows, channels, height, width)."""
    shape = (rows, channels, height, width)
    signs = np.random.default_rng(seed).integers(-1, 2, shape, dtype=np.int8)
    return torch.from_numpy(bitplanes.pack(signs.reshape(rows, -1))), torch.from_numpy(signs)


SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 7), st.integers(0, 99))


@given(SHAPES)
def test_unpacking_to_a_tensor_is_unpacking_in_storage(shape):
    planes, signs = example(*shape)
    unpacked = unpack_signs(planes, signs.shape)
    assert unpacked.dtype == torch.float32
    assert torch.equal(unpacked, signs.float())
    pixels = signs[0].numel()
    assert np.array_equal(unpacked.flatten(1).numpy(), bitplanes.unpack(planes.numpy(), pixels))


@given(SHAPES, st.sampled_from([0.3, -0.3, 16 / 256, 1.0]))
def test_scaled_signs_are_signs_times_the_scale(shape, scale):
    planes, signs = example(*shape)
    assert torch.equal(unpack_signs(planes, signs.shape, scale=scale), signs.float() * scale)


def test_what_was_never_written_unpacks_to_a_code_that_is_no_sign():
    planes = torch.full((1, 2, 3), bitplanes.FILL_BYTE, dtype=torch.uint8)
    assert (unpack_signs(planes, torch.Size((1, 1, 4, 5))) == bitplanes.UNWRITTEN).all()


@pytest.mark.parametrize("shape", [(2, 1, 3, 4), (2, 1, 6, 7), (3, 1, 4, 5)], ids=["cropped", "padded", "other rows"])
def test_signs_are_not_unpacked_into_the_shape_of_other_images(shape):
    planes, _ = example(2, 1, 4, 5, seed=0)
    with pytest.raises(GradshardError, match=r"packed signs of shape \(2, 2, 3\) are none of images of shape"):
        unpack_signs(planes, torch.Size(shape))


@pytest.mark.parametrize(("planes", "told"), [(torch.zeros(2, 2, 2), "float32"), (np.zeros((2, 2, 2)), "ndarray")])
def test_what_is_no_packed_sign_is_refused(planes, told):
    with pytest.raises(GradshardError, match=f"packed signs are .*{told}: give them as the loader does"):
        unpack_signs(planes, (2, 1, 3, 4))


def test_signs_below_which_a_random_step_is_packed_are_not_unpacked_without_it():
    planes, _ = example(4, 1, 4, 5, seed=0)
    with pytest.raises(GradshardError, match=r"packed signs of shape \(2, 4, 3\) are none of images"):
        unpack_signs(planes.view(2, 4, 3), torch.Size((2, 1, 4, 5)))


@pytest.fixture
def compiler():
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("torch.compile needs a C++ compiler for the CPU")
    torch.compiler.reset()
    metrics.reset()
    yield
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(8, 1, 28, 28), (2, 3, 9, 7)], ids=["whole bytes", "with padding"])
def test_compiled_it_is_one_kernel_that_gives_the_same(compiler, shape):
    planes, signs = example(*shape, seed=1)
    images = torch.rand(signs.shape, generator=torch.Generator().manual_seed(1))

    def perturbed():
        return perturb(images, unpack_signs(planes, images.shape), 0.3)

    compiled = torch.compile(perturbed, fullgraph=True)()
    assert metrics.generated_kernel_count == 1
    assert torch.equal(compiled, perturbed())
