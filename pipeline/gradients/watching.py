"""Detection of undefined input gradients, whichever attack asks for them.

Torch's sign of NaN is 0, so an attack does not move an image where its gradient is undefined, and the model looks
robust.
"""

from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor, nn


class Watched(nn.Module):
    """A model that counts the rows whose input gradient is NaN or infinite although that of their logits is not.

    Logits and gradients are those of the model, bit for bit. Copies, made for attacks from elsewhere, share its counts.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self._counted = _Counted()

    @property
    def rows(self) -> int:
        """Number of rows for which a gradient was taken, in all passes together."""
        return self._counted.rows

    @property
    def undefined(self) -> int:
        """Number of these rows whose gradient was undefined."""
        return 0 if self._counted.undefined is None else int(self._counted.undefined)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, C, H, W)."""
        if not (torch.is_grad_enabled() and images.requires_grad):
            return cast(Tensor, self.model(images))
        going = _Pass(self)
        entered: Tensor = _AtImages.apply(images, going)
        left: Tensor = _AtLogits.apply(self.model(entered), going)
        return left

    def count(self, undefined: Tensor) -> None:
        """Count the rows of one backward pass and the ``undefined`` ones, bool (n,), without waiting for the device."""
        counted, found = self._counted, undefined.sum()
        counted.rows += len(undefined)
        counted.undefined = found if counted.undefined is None else counted.undefined + found


@dataclass
class _Counted:
    """Counts that a model and its copies share."""

    rows: int = 0
    undefined: Tensor | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self


class _Pass:
    """One forward pass, and which of its rows have a finite gradient at the logits."""

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
