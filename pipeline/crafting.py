"""Signed gradients of a static model, for a sign store."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.attacks import input_gradient
from pipeline.vocabulary import Gradient, LabelPolicy

# Rows are computed in batches of about this many pixels: it bounds memory, keeps activations near the caches, and does
# not change the result.
BATCH_PIXELS = 64 * 28 * 28


@dataclass(frozen=True)
class Direction:
    """Which gradient a store holds the signs of."""

    gradient: Gradient
    policy: LabelPolicy


def to_pixels(images: Tensor) -> Tensor:
    """Stored images, uint8 (n, C, H, W), as pixels in [0, 1], float32."""
    return images.float().div_(255)


def signed_gradients(model: nn.Module, images: Tensor, labels: Tensor, direction: Direction) -> tuple[Tensor, Tensor]:
    """The signs of a model's input gradients.

    Args:
        model: a static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        labels: true labels, int64 (n,).
        direction: which gradient, for whose label.

    Returns:
        Signs int8 (n, C·H·W), and the labels that the gradients were taken for, int64 (n,); both on the CPU.
    """
    size = max(1, BATCH_PIXELS // images[0].numel())
    signs, chosen = [], []
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        slope, used = input_gradient(
            model,
            to_pixels(images[rows]),
            labels[rows],
            gradient=direction.gradient,
            policy=direction.policy,
        )
        signs.append(slope.sign().to(torch.int8).flatten(1).cpu())
        chosen.append(used.cpu())
    return torch.cat(signs), torch.cat(chosen)
