"""Random crops and flips, the same for an image and for the signs stored for it.

A stored sign belongs to the image before the move. Moved with the image, it stays right if the network's gradient moves
with its input; docs/augmentation.md measures how well that holds.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

_CROPS = 2


@dataclass(frozen=True)
class Augmentation:
    """Pad by ``padding`` pixels of 0 on every side and crop at random; mirror at random if ``flip``."""

    padding: int = 0
    flip: bool = False

    def __bool__(self) -> bool:
        return self.padding > 0 or self.flip

    def draw(self, rows: int, *, seed: int, step: int) -> "CropFlip":
        """Draw where each row of a step's batch is cropped, and whether it is mirrored."""
        draws = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, step, _CROPS))))
        shifts = draws.integers(-self.padding, self.padding + 1, size=(rows, 2))
        flips = draws.random(rows) < 0.5 if self.flip else np.zeros(rows, dtype=np.bool_)
        return CropFlip(torch.from_numpy(shifts), torch.from_numpy(flips))


@dataclass(frozen=True)
class CropFlip:
    """Per row, how far the crop lies down and to the right, int64 (n, 2), and whether it is mirrored, bool (n,)."""

    shifts: Tensor
    flips: Tensor

    def __getitem__(self, rows: slice) -> "CropFlip":
        return CropFlip(self.shifts[rows], self.flips[rows])

    def apply(self, values: Tensor) -> Tensor:
        """Return the views of images or signs, (n, C, H, W), in their dtype and on their device; 0 outside images."""
        _, _, height, width = values.shape
        shifts, flips = self.shifts.to(values.device), self.flips.to(values.device)
        down = torch.arange(height, device=values.device) + shifts[:, :1]
        right = torch.arange(width, device=values.device).expand(len(values), -1)
        right = torch.where(flips[:, None], width - 1 - right, right) + shifts[:, 1:]
        inside = _within(down, height)[:, None, :, None] & _within(right, width)[:, None, None, :]
        rows = torch.arange(len(values), device=values.device)[:, None, None]
        down, right = down.clamp(0, height - 1)[:, :, None], right.clamp(0, width - 1)[:, None, :]
        found = values.permute(0, 2, 3, 1)[rows, down, right].permute(0, 3, 1, 2)
        return found * inside.to(values.dtype)

    def undo(self, views: Tensor, hidden: Tensor) -> Tensor:
        """Move the pixels of views back to their places in the images; the inverse of ``apply``.

        Args:
            views: (n, C, H, W); their pixels outside of the images are dropped.
            hidden: of the same shape and dtype, the values of pixels that the views do not show.
        """
        # Mirroring reverses the direction of the shift to the right.
        ways = torch.stack([-torch.ones_like(self.shifts[:, 0]), 2 * self.flips.long() - 1], dim=1)
        back = CropFlip(ways * self.shifts, self.flips)
        shown = back.apply(torch.ones_like(views[:, :1], dtype=torch.bool))
        return torch.where(shown, back.apply(views), hidden)


def _within(positions: Tensor, size: int) -> Tensor:
    return (positions >= 0) & (positions < size)
