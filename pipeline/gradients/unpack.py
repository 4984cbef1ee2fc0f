"""Unpacking of stored bit planes into perturbations, on any device."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradshard.storage.errors import GradshardError
from gradshard.storage.formats import bitplanes


def unpack_signs(planes: Tensor, shape: Sequence[int], *, scale: float = 1.0) -> Tensor:
    """Unpack bit planes into signs times a number: the tensor form of ``gradshard.storage.formats.bitplanes.unpack``.

    Compiled, it is one kernel. On the CPU and not compiled, each pair of bytes is looked up in a table.

    Args:
        planes: uint8 (n, 2, ceil(P / 8)), most significant bit first.
        shape: (n, C, H, W) with P = C·H·W.
        scale: what the signs are multiplied by.

    Returns:
        Float32 of -scale, 0 and +scale in the given shape; a few unused bytes may lie between its examples.

    Raises:
        GradshardError: the planes are no tensor of bytes, or do not fit images of this shape.
    """
    if not isinstance(planes, Tensor) or planes.dtype != torch.uint8:
        found = planes.dtype if isinstance(planes, Tensor) else type(planes).__name__
        raise GradshardError(f"packed signs are {found}: give them as the loader does, a tensor of torch.uint8")
    shape = torch.Size(shape)
    wanted = (shape[0], 2, bitplanes.packed_bytes(shape[1:].numel()))
    if planes.shape != wanted:
        raise GradshardError(
            f"packed signs of shape {tuple(planes.shape)} are none of images of shape {tuple(shape)}, whose are "
            f"{wanted}: give the images that the signs came with, neither resized nor cropped after"
        )
    if planes.device.type == "cpu" and not torch.compiler.is_compiling():
        return _looked_up(planes, scale)[:, : shape[1:].numel()].view(shape)
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=planes.device)
    bits = planes.unsqueeze(-1).bitwise_right_shift(shifts).bitwise_and_(1).flatten(2)[:, :, : shape[1:].numel()]
    return (2 * bits[:, 0] + bits[:, 1]).float().sub_(1).mul_(scale).view(shape)


def _looked_up(planes: Tensor, scale: float) -> Tensor:
    """Return the scaled signs, float32 (n, 8 · ceil(P / 8)), including those of padding bits."""
    values, table = planes.numpy(), _table(scale)
    pairs = values[:, 0].astype(np.uint16)
    pairs <<= 8
    pairs |= values[:, 1]
    found = np.empty(pairs.shape, dtype=table.dtype)
    np.take(table, pairs, mode="clip", out=found)  # no index is out of range, and "raise" would copy
    return torch.from_numpy(found.view(np.float32))


@lru_cache(maxsize=8)
def _table(scale: float) -> npt.NDArray[np.void]:
    """Return a table of eight scaled signs, 32 bytes per item, indexed by 256 times plane 0's byte plus plane 1's."""
    pairs = np.arange(1 << 16)
    planes = np.stack([pairs >> 8, pairs & 0xFF], axis=1).astype(np.uint8)
    signs = bitplanes.unpack(planes[:, :, np.newaxis], 8)
    return (signs * np.float32(scale)).view(np.dtype((np.void, 32)))[:, 0]
