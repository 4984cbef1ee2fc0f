"""Shortcuts: faster layers for the CPU, all in one place, so that architectures are written in torch's own layers.

Each differs from torch's layer only in its ``forward``, so a layer is replaced by changing its class: parameters, their
names and their initial values stay. The module of each says what it saves and what it computes.
"""

from collections.abc import Mapping

from torch import nn

from gradshard.pipeline.models.dropout import Dropout
from gradshard.pipeline.models.flatten import Flatten
from gradshard.pipeline.models.grayscale import GreyConv2d

SHORTCUTS: Mapping[type[nn.Module], type[nn.Module]] = {
    nn.Conv2d: GreyConv2d,
    nn.Dropout: Dropout,
    nn.Flatten: Flatten,
}


def use_cpu_layers(model: nn.Module) -> nn.Module:
    """Replace layers of a model by their shortcuts where these fit, and return the same model."""
    for layer in model.modules():
        if type(layer) in SHORTCUTS and _serves(layer):
            layer.__class__ = SHORTCUTS[type(layer)]
    return model


def _serves(layer: nn.Module) -> bool:
    """Tell whether the shortcut of a layer's type computes what this layer does."""
    if isinstance(layer, nn.Conv2d):
        plain = layer.padding == (0, 0) and layer.dilation == (1, 1)
        return plain and layer.in_channels == 1
    if isinstance(layer, nn.Flatten):
        return layer.start_dim == 1 and layer.end_dim == -1
    return not (isinstance(layer, nn.Dropout) and layer.inplace)
