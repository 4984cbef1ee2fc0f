"""Stored bits to signs times epsilon, float32, on the CPU, against the memory's bandwidth.

The bandwidth is the bytes a second at which NumPy copies the pixels of 64 images of 3 x 299 x 299, float32, 69 MB, to
new memory: unpacking writes as many bytes to new memory too. A batch of MNIST's size, 200 kB, is held against the same
bandwidth, although neither its bits nor what they become leave the processor's caches. One thread each.

What it does not show: a GPU, or what `torch.compile` makes of it, which is one kernel on either: the test suite holds
that.
"""

from collections.abc import Callable

import numpy as np
import torch

from benchmarks.devices import awaited
from benchmarks.ratios import Claim, Step, claim, ratios, seconds
from gradshard.pipeline.gradients.perturb import perturb
from gradshard.pipeline.gradients.unpack import unpack_signs
from gradshard.storage.formats import bitplanes

TARGET = 0.5
EPSILON = 0.3

_BATCH = 64
_SMALL, _LARGE = (1, 28, 28), (3, 299, 299)
# How often the small batch is unpacked: as many bytes as the large one has, about.
_TIMES = 342


def measure(*, quick: bool = False) -> list[Claim]:
    """Compare unpacking with copying, and perturbing by bits with perturbing by signs that are there."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure_on(torch.device("cpu"), repeats=2 if quick else 15)
    finally:
        torch.set_num_threads(threads)


def measure_on(device: torch.device, *, repeats: int, compiled: bool = False) -> list[Claim]:
    """Compare them on a device; ``compiled`` is unpacking by one kernel that torch compiles."""
    unpack: Callable[..., torch.Tensor] = torch.compile(unpack_signs) if compiled else unpack_signs
    small, large = _planes(_SMALL).to(device), _planes(_LARGE).to(device)
    small_shape, large_shape = torch.Size((_BATCH, *_SMALL)), torch.Size((_BATCH, *_LARGE))
    images = torch.rand(large_shape, generator=torch.Generator().manual_seed(0)).to(device)
    signs = unpack_signs(large, large_shape)
    steps: dict[str, Step] = {
        "copy": (lambda: images.numpy().copy()) if device.type == "cpu" else images.clone,
        "large": lambda: unpack(large, large_shape, scale=EPSILON),
        "small": lambda: [unpack(small, small_shape, scale=EPSILON) for _ in range(_TIMES)],
        "from bits": lambda: perturb(images, unpack(large, large_shape), EPSILON),
        "from signs": lambda: perturb(images, signs, EPSILON),
    }
    times = seconds({name: awaited(step, device) for name, step in steps.items()}, repeats=repeats)
    share = _TIMES * small_shape.numel() / large_shape.numel()
    how = ", compiled," * compiled
    return [
        claim(
            f"rate of unpacking ImageNet-size rows{how} over bandwidth",
            ratios(times, "copy", "large"),
            target=TARGET,
            at="least",
        ),
        claim(
            f"rate of unpacking MNIST-size rows{how} over bandwidth",
            [share * ratio for ratio in ratios(times, "copy", "small")],
            target=TARGET,
            at="least",
        ),
        claim(
            f"perturbing by bits{how} over perturbing by signs that are in memory",
            ratios(times, "from bits", "from signs"),
        ),
    ]


def _planes(shape: tuple[int, int, int]) -> torch.Tensor:
    signs = np.random.default_rng(0).integers(-1, 2, (_BATCH, int(np.prod(shape))), dtype=np.int8)
    return torch.from_numpy(bitplanes.pack(signs))


if __name__ == "__main__":
    for measured in measure():
        print(measured.line())
