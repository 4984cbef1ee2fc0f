"""The error of one model on some images: clean, under stored signs, and under PGD of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradshard.pipeline.attacks.pgd import iterate_linf
from gradshard.pipeline.gradients.microbatches import in_microbatches
from gradshard.pipeline.gradients.random_step import RandomStep, step_along
from gradshard.pipeline.gradients.signs import to_unit_range
from gradshard.pipeline.gradients.unpack import unpack_signs

# The size of a step of PGD, in epsilon / steps, as in the table of attacks (Madry et al. 2018).
_STEP = 2.5


class ErrorRates(NamedTuple):
    """Shares of images classified wrong: clean, under at least one store's signs, and under the model's own PGD."""

    clean: float
    transfer: float | None
    pgd: float


@dataclass(frozen=True)
class ProbedImages:
    """Images that a model is tried on repeatedly.

    Attributes:
        images: uint8 (n, C, H, W).
        labels: int64 (n,).
        planes: the signs of S stores for them, uint8 (S, n, 2, B); none without stores.
        directions: for each store, which way to step along its signs, 1 or -1.
        starts: where PGD starts from each image, in [-1, 1], in units of epsilon, float32 (n, C, H, W).
        random_steps: for each store, the random step that comes before its signs, if any.
        rows: the images' row numbers, (n,), which determine the random steps.
    """

    images: Tensor
    labels: Tensor
    planes: Tensor | None
    directions: tuple[int, ...]
    starts: Tensor
    random_steps: tuple[RandomStep | None, ...] = ()
    rows: Sequence[int] = ()


def random_starts(shape: torch.Size, *, seed: int) -> Tensor:
    """Draw PGD's starts for images of a shape, uniform in [-1, 1]."""
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 1


def error_rates(model: nn.Module, probed: ProbedImages, *, epsilon: float, steps: int) -> ErrorRates:
    """Measure a model in eval mode, in fp32, on the device that it is on; afterwards its mode is restored."""
    device, training = next(model.parameters()).device, model.training
    model.eval()
    try:
        found = in_microbatches(
            lambda rows: _wrong(model, probed, rows, device, epsilon, steps), probed.images.to(device), model
        )
    finally:
        model.train(training)
    clean, transfer, pgd = (torch.cat(parts).float().mean().item() for parts in zip(*found, strict=True))
    return ErrorRates(clean, None if probed.planes is None else transfer, pgd)


def _wrong(
    model: nn.Module, probed: ProbedImages, rows: slice, device: torch.device, epsilon: float, steps: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Tell which images are classified wrong: clean, under any of the stores, and under PGD; each bool (n,)."""
    images, labels = to_unit_range(probed.images[rows].to(device)), probed.labels[rows].to(device)

    def wrong(tried: Tensor) -> Tensor:
        with torch.no_grad():
            predicted: Tensor = model(tried).argmax(1)
            return predicted != labels

    transfer = torch.zeros_like(labels, dtype=torch.bool)
    stored = () if probed.planes is None else probed.planes[:, rows].to(device)
    random_steps = probed.random_steps or (None,) * len(stored)
    for planes, direction, random_step in zip(stored, probed.directions, random_steps, strict=True):
        signs = unpack_signs(planes, images.shape, scale=direction)
        transfer |= wrong(step_along(images, signs, epsilon, step=random_step, rows=probed.rows[rows]))
    own = iterate_linf(
        model,
        images,
        labels,
        start=images + epsilon * probed.starts[rows].to(device),
        epsilon=epsilon,
        step=_STEP * epsilon / steps,
        steps=steps,
    )
    return wrong(images), transfer, wrong(own)
