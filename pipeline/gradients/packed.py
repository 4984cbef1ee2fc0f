"""Packed signs of rows, piece by piece, the same wherever the rows come from.

The last bit of a gradient may depend on the batch, so every way of making a store cuts its rows as this module does.
"""

import math
from collections.abc import Iterator

import numpy as np
from torch import Tensor, nn

from gradshard.pipeline.gradients.microbatches import microbatches
from gradshard.pipeline.gradients.signs import GradientSpec, compute_signs
from gradshard.storage.formats import bitplanes
from gradshard.storage.formats.bitplanes import Labels, Planes, packed_bytes
from gradshard.storage.formats.chunking import split_slice

# Bytes that are read at once: enough that opening a file costs little, too few to matter in memory.
_PIECE_BYTES = 1 << 20


def pieces(rows: slice, *, pixels: int, chunk: int, at_once: int = 1) -> Iterator[slice]:
    """Cut rows into pieces to read at once: whole chunks that hold about 1 MiB, or ``at_once`` rows if that is more."""
    step = chunk * math.ceil(max(_PIECE_BYTES // pixels, at_once) / chunk)
    return split_slice(rows, step)


def packed_signs(
    model: nn.Module, images: Tensor, labels: Tensor, direction: GradientSpec, *, first: int = 0
) -> tuple[Planes, Labels]:
    """Compute the packed signs of one piece.

    Args:
        model: a static model, in eval mode.
        images: uint8 (n, C, H, W), on the model's device.
        labels: true labels, int64 (n,), on the model's device.
        direction: which gradient, for which label.
        first: the number of the first row, for messages.

    Returns:
        Planes uint8 (n, 2, ceil(P / 8)), and the labels that the gradients were taken for, int64 (n,).

    Raises:
        GradshardError: a gradient is NaN or infinite.
    """
    planes = np.empty((len(images), 2, packed_bytes(images[0].numel())), dtype=np.uint8)
    chosen = np.empty(len(images), dtype=np.int64)
    # Signs are packed batch by batch, while in the cache: unpacked they take four times the room.
    for batch in microbatches(images, model):
        signs, used = compute_signs(model, images[batch], labels[batch], direction, first=first + batch.start)
        planes[batch], chosen[batch] = bitplanes.pack(signs.numpy()), used.numpy()
    return planes, chosen
