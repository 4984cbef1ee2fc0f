"""A first convolution for images of one channel, whose gradient with respect to the pixels is cheap."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class GreyConv2d(nn.Conv2d):
    """``nn.Conv2d`` of one input channel, without padding, whose gradient to the pixels is a matrix product on the CPU.

    Torch's own backward pass to a single channel takes some tenths of the time of all other layers, for a hundredth of
    their multiplications. Here the gradient at every position is multiplied by the kernels, which gives the gradient of
    the patch under it, and the patches are added up. The output and the parameters' gradients are torch's own.
    """

    def forward(self, images: Tensor) -> Tensor:
        """Return the features (N, C, H', W') of images (N, 1, H, W)."""
        if images.device.type != "cpu" or not (images.requires_grad and torch.is_grad_enabled()):
            return super().forward(images)
        features: Tensor = _ToPixels.apply(super().forward(images.detach()), images, self.weight.detach(), self.stride)
        return features


class _ToPixels(torch.autograd.Function):
    """The unchanged features, whose gradient goes on to the parameters and, through the kernels, to the pixels."""

    @staticmethod
    def forward(context: Any, features: Tensor, images: Tensor, kernels: Tensor, stride: tuple[int, int]) -> Tensor:
        context.save_for_backward(kernels)
        context.size, context.stride = images.shape[2:], stride
        return features.view_as(features)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        (kernels,) = context.saved_tensors
        count, channels = gradient.shape[:2]
        # This makes no copy if the features are channels-last.
        positions = gradient.permute(0, 2, 3, 1).reshape(count, -1, channels)
        patches = kernels.to(gradient.dtype).reshape(channels, -1).t() @ positions.transpose(1, 2)
        pixels = functional.fold(
            patches.to(kernels.dtype), context.size, kernel_size=kernels.shape[2:], stride=context.stride
        )
        return gradient, pixels, None, None
