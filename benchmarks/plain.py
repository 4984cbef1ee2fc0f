"""Model A as people write it, of torch's own layers in its default memory format: for the loops and libraries."""

import torch
from torch import nn

from gradshard.pipeline import models


def plain_model(sample_shape: tuple[int, int, int]) -> nn.Sequential:
    """Model A with the parameters of the seed 0, in training mode."""
    model = models.create_model("A", sample_shape, 10, seed=0).to(memory_format=torch.contiguous_format)
    return nn.Sequential(*(_own(layer) for layer in model.children()))


def _own(layer: nn.Module) -> nn.Module:
    if isinstance(layer, nn.Dropout):
        return nn.Dropout(layer.p)
    if isinstance(layer, nn.Flatten):
        return nn.Flatten()
    if isinstance(layer, nn.Conv2d):
        plain = nn.Conv2d(layer.in_channels, layer.out_channels, (layer.kernel_size[0], layer.kernel_size[1]))
        plain.load_state_dict(layer.state_dict())
        return plain
    return layer
