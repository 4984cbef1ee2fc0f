"""Random numbers that depend only on a seed, a row and a copy, so that a store need not hold its draws.

They are the raw output of Philox4x64-10 (Salmon et al. 2011) with the key (seed, purpose) and the counter (block, row,
copy, 0). NumPy promises never to change it, and any language can compute it, so no batch, shard or library matters.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Planes

_SIGNS, _UNIFORM, _SEEDS, _CLASSES = range(4)
# Bits of a float32's mantissa, so that each number is exact.
_BITS = 24


def row_signs(shape: torch.Size, rows: Iterable[int], *, seed: int, copy: int) -> Tensor:
    """Draw -1 or +1 with equal chance for some rows, float32 in the shape (n, C, H, W) of their images."""
    planes = packed_row_signs(shape[1:].numel(), rows, seed=seed, copy=copy)
    return torch.from_numpy(bitplanes.unpack(planes, shape[1:].numel())).float().view(shape)


def packed_row_signs(pixels: int, rows: Iterable[int], *, seed: int, copy: int) -> Planes:
    """Draw what ``row_signs`` draws, for rows of ``pixels`` pixels, as bit planes, uint8 (n, 2, ceil(pixels / 8))."""
    size, wanted = bitplanes.packed_bytes(pixels), list(rows)
    planes = np.zeros((len(wanted), 2, size), dtype=np.uint8)
    for place, row in enumerate(wanted):
        planes[place, 0] = _raw(-(-pixels // 64), row, seed, copy, _SIGNS).view(np.uint8)[:size]
    planes[:, 0, -1] &= 0xFF << (8 * size - pixels) & 0xFF
    return planes


def row_uniform(shape: torch.Size, rows: Iterable[int], *, seed: int, copy: int) -> Tensor:
    """Draw uniform numbers in [-1, 1) for some rows, float32 in the shape (n, C, H, W) of their images."""
    pixels = shape[1:].numel()
    drawn = [_raw(pixels, row, seed, copy, _UNIFORM) >> np.uint64(64 - _BITS) for row in rows]
    unit = np.stack(drawn).astype(np.float32) / np.float32(1 << _BITS)
    return torch.from_numpy(2 * unit - 1).view(shape)


def row_seed(row: int, *, seed: int, copy: int) -> int:
    """Draw a seed of 31 bits for the generators of an attack from elsewhere."""
    return int(_raw(1, row, seed, copy, _SEEDS)[0] >> np.uint64(33))


def row_classes(labels: Tensor, rows: Iterable[int], *, seed: int, classes: int) -> Tensor:
    """Draw for each row a class other than its label, with equal chance; int64 (n,), the same for every copy."""
    drawn = [int(_raw(1, row, seed, 0, _CLASSES)[0] >> np.uint64(11)) % (classes - 1) for row in rows]
    return (labels + 1 + torch.tensor(drawn, device=labels.device)) % classes


def _raw(count: int, row: int, seed: int, copy: int, purpose: int) -> npt.NDArray[np.uint64]:
    key, counter = np.array([seed, purpose], np.uint64), np.array([0, row, copy, 0], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count).astype("<u8")
