"""A first convolution for images of one channel, whose gradient with respect to the pixels is cheap."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GreyConv2d(nn.Conv2d):
    """``nn.Conv2d`` of one input channel, without padding, whose pixels' gradient is a matrix product on the CPU.

    Torch's own backward pass towards a single channel takes as long as some tenths of the work of all other layers,
    for a hundredth of their multiplications. Here every position's gradient is multiplied with the kernels, which gives
    that of the patch under it, and the patches are added up. The output, and the gradients of the parameters, are
    torch's own.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, C, H', W') of images (N, 1, H, W)."""
        if images.device.type != "cpu" or not (images.requires_grad and torch.is_grad_enabled()):
            return super().forward(images)
        features: Tensor = _ToPixels.apply(super().forward(images.detach()), images, self.weight.detach(), self.stride)
        return features


class _ToPixels(torch.autograd.Function):
    """The features as they are; their gradient goes on to the parameters, and by the kernels to the pixels."""

    @staticmethod
    def forward(context: Any, features: Tensor, images: Tensor, kernels: Tensor, stride: tuple[int, int]) -> Tensor:
        context.save_for_backward(kernels)
        context.size, context.stride = images.shape[2:], stride
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (kernels,) = context.saved_tensors
        count, channels = gradient.shape[:2]
        # Without a copy where the features are channels-last.
        positions = gradient.permute(0, 2, 3, 1).reshape(count, -1, channels)
        patches = kernels.to(gradient.dtype).reshape(channels, -1).t() @ positions.transpose(1, 2)
        pixels = functional.fold(
            patches.to(kernels.dtype), context.size, kernel_size=kernels.shape[2:], stride=context.stride
        )
        return gradient, pixels, None, None
