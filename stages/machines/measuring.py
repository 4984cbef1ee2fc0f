"""Short measurements of the speed of this machine."""

import time

import torch

from gradshard.pipeline import models
from gradshard.pipeline.gradients.microbatches import rows_at_once
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs
from gradshard.pipeline.models.precision import choose_device

_SECONDS = 2.0


def signed_gradient_rate(architecture: str, sample_shape: tuple[int, int, int], classes: int) -> float:
    """Measure how fast this machine computes an architecture's signed gradients, images/s; on a GPU if there is one.

    It takes about two seconds after one batch that is not counted. Weights and images are random, as the work does not
    depend on them.

    Raises:
        GradshardError: there is no such architecture.
    """
    device = choose_device("auto")
    module = models.create_model(architecture, sample_shape, classes, seed=0).to(device).eval()
    generator = torch.Generator().manual_seed(0)
    count = rows_at_once(sample_shape, device, module)
    images = torch.randint(256, (count, *sample_shape), dtype=torch.uint8, generator=generator).to(device)
    labels = torch.zeros(count, dtype=torch.int64, device=device)
    direction = GradientSpec("exact", "predicted")
    compute_signs(module, images, labels, direction)
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < _SECONDS:
        compute_signs(module, images, labels, direction)
        done += count
    return done / elapsed
