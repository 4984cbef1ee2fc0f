"""Stored bit planes to signs, on whatever device the bytes are."""

import torch
from torch import Tensor


def unpack_signs(planes: Tensor, shape: torch.Size) -> Tensor:
    """Unpack bit planes into signs: the tensor form of ``storage.bitplanes.unpack``.

    Args:
        planes: uint8 (n, 2, ceil(P / 8)), most significant bit first.
        shape: (n, C, H, W) with P = C·H·W.

    Returns:
        Float32 of -1, 0 and +1 in the given shape.
    """
    pixels = shape[1:].numel()
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=planes.device)
    bits = planes.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and_(1).flatten(2)[:, :, :pixels]
    return bits[:, 0].float().mul_(2).add_(bits[:, 1]).sub_(1).view(shape)
