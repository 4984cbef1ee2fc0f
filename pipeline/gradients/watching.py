"""Gradients watched on their way to the images, whatever attack asks for them.

Torch's sign of NaN is 0, so an attack leaves an image as it is where the gradient is undefined, and the model looks as
if it resisted.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn


class Watched(nn.Module):
    """A model that counts the rows whose input gradient is NaN or infinite though that of their logits is not.

    Logits and gradients are those of the model, bit for bit.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._rows = 0
        self._undefined: Tensor | None = None

    @property
    def rows(self) -> int:
        """Count the rows that a gradient was taken for, in all passes together."""
        return self._rows

    @property
    def undefined(self) -> int:
        """Count those of them that had none."""
        return 0 if self._undefined is None else int(self._undefined)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return cast(Tensor, self.model(images))
        going = _Pass(self)
        entered: Tensor = _AtImages.apply(images, going)
        left: Tensor = _AtLogits.apply(self.model(entered), going)
        return left

    def count(self, undefined: Tensor) -> None:
        """Add the rows of one backward pass, bool (n,); on the device, without waiting for it."""
        self._rows += len(undefined)
        found = undefined.sum()
        self._undefined = found if self._undefined is None else self._undefined + found


class _Pass:
    """One pass forwards, and which rows of it went backwards from a gradient that was sound."""

    def __init__(self, watched: Watched) -> None:
        self.watched = watched
        self.sound: Tensor | None = None


class _AtLogits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, going: _Pass) -> Tensor:
        ctx.going = going
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.going.sound = gradient.isfinite().all(1)
        return gradient, None


class _AtImages(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, going: _Pass) -> Tensor:
        ctx.going = going
        return images.view_as(images)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.going.watched.count((~gradient.isfinite()).flatten(1).any(1) & ctx.going.sound)
        return gradient, None
