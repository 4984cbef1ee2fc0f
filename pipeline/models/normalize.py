"""Normalisation inside a model, so that outside of it pixels lie in [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Normalised(nn.Module):
    """A model whose input is normalised to (x - mean) / std, channel by channel.

    Mean and standard deviation are buffers: they are part of the weights file and of the model's digest. A single
    number is used for all channels, as is the average of several if the images have another number of channels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], *, channels: int) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", _per_channel(mean, channels))
        self.register_buffer("std", _per_channel(std, channels))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images in [0, 1], (N, C, H, W)."""
        logits: Tensor = self.model((images - self.mean) / self.std)
        return logits


def _per_channel(values: Sequence[float], channels: int) -> Tensor:
    """Return one value per channel, (1, C, 1, 1)."""
    numbers = torch.tensor(values, dtype=torch.float32)
    if len(numbers) != channels:
        numbers = numbers.mean().expand(channels)
    return numbers.reshape(1, channels, 1, 1).clone()
