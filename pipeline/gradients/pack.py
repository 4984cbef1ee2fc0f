"""Packing of signs into bit planes, on any device."""

import torch
from torch import Tensor
from torch.nn import functional

from gradshard.storage.formats import bitplanes


def pack_signs(signs: Tensor) -> Tensor:
    """Pack signs into bit planes: the tensor form of ``gradshard.storage.formats.bitplanes.pack``.

    Args:
        signs: -1, 0 and +1 of any dtype, (n, C, H, W).

    Returns:
        Uint8 (n, 2, ceil(P / 8)) with P = C·H·W, most significant bit first, on the device of the signs.
    """
    flat = signs.flatten(1).to(torch.int8)
    if signs.device.type == "cpu":
        return torch.from_numpy(bitplanes.pack(flat.numpy()))
    return _added_up(flat)


def _added_up(flat: Tensor) -> Tensor:
    """Return the planes of signs, int8 (n, P), by arithmetic that every device has."""
    # The last byte is filled with -1, whose two bits are 0.
    filled = functional.pad(flat, (0, -flat.shape[1] % 8), value=-1)
    bits = torch.stack([filled > 0, filled == 0], dim=1).view(len(flat), 2, -1, 8)
    weights = torch.tensor([128, 64, 32, 16, 8, 4, 2, 1], dtype=torch.uint8, device=flat.device)
    planes: Tensor = (bits * weights).sum(-1, dtype=torch.uint8)
    return planes
