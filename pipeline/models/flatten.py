"""Flattening of features, whose gradient keeps their memory format."""

from typing import Any

import torch
from torch import Tensor, nn


class Flatten(nn.Flatten):
    """``nn.Flatten`` from dimension 1, whose backward pass gives the gradient in the memory format of the features.

    Torch's own gives it in the default format. If the features are channels-last, all layers before then work on two
    tensors of different strides: the backward pass of one ReLU of model A takes five times as long.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Return features (N, ...), flattened to (N, F)."""
        if features.dim() == 4 and features.is_contiguous(memory_format=torch.channels_last):
            flat: Tensor = _ChannelsLast.apply(features)
            return flat
        return super().forward(features)


class _ChannelsLast(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, features: Tensor) -> Tensor:
        context.shape = features.shape
        return features.flatten(1)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return gradient.view(context.shape).contiguous(memory_format=torch.channels_last)
